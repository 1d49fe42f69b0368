"""Dev tunnels from the client's side: management API, relay websocket, SSH over it, the codespace's gRPC services."""
