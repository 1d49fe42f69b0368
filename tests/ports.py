"""Free ports of this machine, for programs that must be told one."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST, _HIGHEST = 10240, 65535
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def _given_to_anybody() -> range:
    """The ports from which the system serves who asks for any; as the IANA has it, where it does not say."""
    try:
        first, last = map(int, _EPHEMERAL.read_text().split())
    except (OSError, ValueError):
        first, last = 49152, 65535
    return range(first, last + 1)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Choose free ports that no connection and no server of another test is given before they are used."""
    taken = _given_to_anybody()
    every = range(_LOWEST, _HIGHEST + 1)
    candidates = [port for port in every if port not in taken] or list(every)
    free = (port for port in random.sample(candidates, len(candidates)) if _is_free(port))
    return [next(free) for _ in range(count)]


def free_port() -> int:
    """Choose one such port."""
    return free_ports(1)[0]
