"""The 64 bytes with which both ends of a ZMTP connection begin (RFC 37, "Version Negotiation")."""

from __future__ import annotations

from codespace_kernels.zmtp.frames import ZmtpError

SIZE = 64

_SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
_VERSION = b"\x03\x01"
_MECHANISM = slice(12, 32)

VERSION_3_0 = b"\x03\x00"
"""An end of this version subscribes by messages, not commands (RFC 23), which publishers of all versions understand."""


def encode_greeting(mechanism: bytes, *, as_server: bool, version: bytes = _VERSION) -> bytes:
    """Give the greeting of an end that speaks this version of ZMTP, by default 3.1, with this mechanism."""
    return (_SIGNATURE + version + mechanism.ljust(20, b"\0") + bytes((as_server,))).ljust(SIZE, b"\0")


def check_greeting(data: bytes) -> None:
    """Look at a greeting, or the first bytes of one: what is no ZMTP is not waited for.

    Raises:
        ZmtpError: Another protocol, or a ZMTP before version 3.
    """
    if data[:1] != _SIGNATURE[:1] or (len(data) > 9 and not data[9] & 1):
        raise ZmtpError("it does not speak ZMTP")
    if len(data) > 10 and data[10] < _VERSION[0]:
        raise ZmtpError(f"it speaks version {data[10]} of ZMTP, 3 is the least")


def mechanism_of(greeting: bytes) -> bytes:
    """Give the name of the mechanism that the other end uses."""
    return greeting[_MECHANISM].rstrip(b"\0")
