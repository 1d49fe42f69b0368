"""What GitHub says about a codespace's dev tunnel."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from codespace_kernels.errors import TunnelError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class TunnelProperties:
    """The `connection.tunnelProperties` object of a codespace (internal form of `GET /user/codespaces/{name}`).

    The tokens are JWTs that expire, so the object is fetched anew for each connection, as long as GitHub gives it, and
    never written to a disk.

    Attributes:
        connect_access_token: Opens the relay's websocket.
        manage_ports_access_token: Reads the tunnel and adds ports.
        service_uri: Base address of the tunnel management API.
        tunnel_id, cluster_id: Which tunnel, on which cluster.
        domain: Given by GitHub; not used to connect.
    """

    connect_access_token: str = dataclasses.field(repr=False)
    manage_ports_access_token: str = dataclasses.field(repr=False)
    service_uri: str
    tunnel_id: str
    cluster_id: str
    domain: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TunnelProperties:
        """Read the object as GitHub gives it, in camel case.

        Raises:
            TunnelError: A field that connecting needs is missing or empty; happens while a codespace is starting.
        """
        names = {field.name: _camel_case(field.name) for field in dataclasses.fields(cls)}
        values = {name: data.get(key) for name, key in names.items()}
        missing = [names[name] for name, value in values.items() if name != "domain" and not _is_text(value)]
        if missing:
            raise TunnelError(
                f"GitHub gave no complete tunnel for the codespace ({', '.join(missing)} missing). "
                "It may still be starting: try again in a moment."
            )
        return cls(**{name: str(value or "") for name, value in values.items()})


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""
