"""Local ZMQ sockets on one side, a remote kernel on the other; no other I/O."""
