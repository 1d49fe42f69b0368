"""Commands of ZMTP: a name and data in one frame (RFC 37, "Commands"), and the properties that READY carries."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from codespace_kernels.zmtp.frames import ZmtpError

if TYPE_CHECKING:
    from collections.abc import Mapping

_VALUE_LENGTH = struct.Struct(">I")


def encode_command(name: bytes, data: bytes = b"") -> bytes:
    """Give the body of a command's frame."""
    return bytes((len(name),)) + name + data


def decode_command(body: bytes) -> tuple[bytes, bytes]:
    """Give the name and the data of a command.

    Raises:
        ZmtpError: The body has no room for the name.
    """
    end = 1 + body[0] if body else 1
    if not 1 < end <= len(body):
        raise ZmtpError("a command without a name")
    return body[1:end], body[end:]


def encode_properties(properties: Mapping[bytes, bytes]) -> bytes:
    """Give the wire form of properties: `Socket-Type`, `Identity`, ...."""
    return b"".join(
        bytes((len(name),)) + name + _VALUE_LENGTH.pack(len(value)) + value for name, value in properties.items()
    )


def decode_properties(data: bytes) -> dict[bytes, bytes]:
    """Give properties by their names in lower case, in which case makes no difference.

    Raises:
        ZmtpError: A name or a value is not whole.
    """
    properties: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        value_length = at + 1 + data[at]
        start = value_length + _VALUE_LENGTH.size
        if start > len(data):
            raise ZmtpError("a property that is not whole")
        end = start + _VALUE_LENGTH.unpack_from(data, value_length)[0]
        if end > len(data):
            raise ZmtpError("a property that is not whole")
        properties[data[at + 1 : value_length].lower()] = data[start:end]
        at = end
    return properties
