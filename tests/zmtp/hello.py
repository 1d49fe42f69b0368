"""What a client of our own says first."""

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)


def ready(kind: bytes = b"DEALER", identity: bytes = b"") -> bytes:
    properties = b"\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
    properties += b"\x08Identity" + len(identity).to_bytes(4, "big") + identity
    body = b"\x05READY" + properties
    return b"\x06" + len(body).to_bytes(8, "big") + body
