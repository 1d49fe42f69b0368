"""What the last connection to a codespace found on its way, kept on disk so that the next one need not ask first.

Nothing of it is secret: tokens are fetched for each connection. And nothing of it is believed: it only has connections
opened early, to places that GitHub, the tunnel service and the codespace are asked about meanwhile. Where their answers
differ, what was opened early is dropped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
import urllib.parse
from typing import TYPE_CHECKING, Any, Self

from codespace_kernels import settings
from codespace_kernels.errors import TunnelError
from codespace_kernels.ssh.files import replace_file
from codespace_kernels.tunnel.management import check_relay_address

if TYPE_CHECKING:
    from pathlib import Path

    from codespace_kernels.tunnel.properties import TunnelProperties

logger = logging.getLogger(__name__)

FOLDER = "ways"
VERSION = 1
_MOST_BYTES = 16384


@dataclasses.dataclass(frozen=True)
class KnownWay:
    """A way that led to a codespace.

    Attributes:
        service_uri, tunnel_id, cluster_id: As `TunnelProperties` has them.
        relay_uri: Address of the relay's websocket.
        ssh_port: Where the codespace's SSH server listened.
        kex, host_key: The key exchange and the host key algorithm that the tunnel's host named first.
    """

    service_uri: str
    tunnel_id: str
    cluster_id: str
    relay_uri: str
    ssh_port: int
    kex: str
    host_key: str

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Rebuild from the file's object.

        Raises:
            KeyError, TypeError, ValueError: It is not as `save` writes it.
            TunnelError: The relay's address is none, or no token may be sent there.
        """
        if data["version"] != VERSION:
            raise ValueError(data["version"])
        values = {field.name: data[field.name] for field in dataclasses.fields(cls)}
        port = values["ssh_port"]
        if not all(isinstance(value, str) for name, value in values.items() if name != "ssh_port"):
            raise TypeError("a text is none")
        if not isinstance(port, int) or not 0 < port < 65536:
            raise ValueError(port)
        check_relay_address(values["relay_uri"])
        return cls(**values)

    def leads_to(self, properties: TunnelProperties) -> bool:
        """Tell whether it was the way to the tunnel that GitHub names now, by a relay of the service that it names."""
        now = (properties.service_uri, properties.tunnel_id, properties.cluster_id)
        return (self.service_uri, self.tunnel_id, self.cluster_id) == now and _is_relay_of(
            properties.service_uri, self.relay_uri
        )


def _is_relay_of(service_uri: str, relay_uri: str) -> bool:
    """Tell whether a relay belongs to a service, so that a changed file sends the tunnel's token nowhere else.

    The service's hosts are `global.` or `{cluster}.`, its relays `{cluster}-data.` of one domain
    (`rel.tunnels.api.visualstudio.com`).
    """
    service, relay = (urllib.parse.urlsplit(uri).hostname or "" for uri in (service_uri, relay_uri))
    if service == relay:
        return True
    domain = service.partition(".")[2]
    is_name = not domain.rpartition(".")[2].isdecimal()
    return is_name and domain.count(".") >= 2 and relay.partition(".")[2] == domain


def load_way(name: str, folder: Path | None = None) -> KnownWay | None:
    """Give the way to a codespace as it was last; None where none is known. Blocks for a moment.

    Args:
        name: The codespace, uniquely among all accounts and hosts.
        folder: Where ways are kept; a folder under `settings.state_dir()` by default.
    """
    path = _path(name, folder)
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(_MOST_BYTES))
        return KnownWay.from_json(data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, TunnelError) as error:
        # It is written anew by the next connection.
        logger.info("the way to %s in %s cannot be used: %r", name, path, error)
        return None


def save_way(name: str, way: KnownWay, folder: Path | None = None) -> None:
    """Keep the way to a codespace. Blocks for a moment; where it cannot be written, the next connection asks first."""
    path = _path(name, folder)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, json.dumps({"version": VERSION, **dataclasses.asdict(way)}, indent=1).encode() + b"\n")
    except OSError as error:
        logger.warning("the way to %s cannot be kept in %s: %s", name, path, error.strerror)


def _path(name: str, folder: Path | None) -> Path:
    folder = folder or settings.state_dir() / FOLDER
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", name)[:60].strip("-.")
    return folder / f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:12]}.json"
