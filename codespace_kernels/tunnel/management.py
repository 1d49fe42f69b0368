"""Client of the dev-tunnel management API: where the relay is, which key its host has, which ports it offers."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

import httpx

from codespace_kernels.errors import TunnelError, WaitTimeoutError
from codespace_kernels.github.hosts import is_loopback
from codespace_kernels.tunnel.errors import TunnelRefusedError, retry_after_seconds

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from codespace_kernels.tunnel.properties import TunnelProperties

logger = logging.getLogger(__name__)

API_VERSION = "2023-09-27-preview"
INTERNAL_PORT_LABEL = "InternalPort"
USER_PORT_LABEL = "UserForwardedPort"

_EXEMPT_HOSTS = frozenset({"localhost", "tunnels.local.api.visualstudio.com"})
_TIMEOUT_SECONDS = 20.0
# What `If-None-Match: *` gets for a port that exists: 409 was seen of the real service, 412 is what HTTP has for it.
_EXISTS_STATUS = frozenset({409, 412})


@dataclasses.dataclass(frozen=True)
class TunnelEndpoint:
    """Where and how a tunnel is reached.

    Attributes:
        relay_uri: Address of the relay's websocket, `ws` or `wss`.
        host_public_keys: Base64 of each SSH public key blob that the tunnel's host may show; may be empty.
        ports: Port numbers that the tunnel has now.
    """

    relay_uri: str
    host_public_keys: tuple[str, ...]
    ports: frozenset[int]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TunnelEndpoint:
        """Read a tunnel object.

        Raises:
            TunnelError: No host is connected to it, or more than one is; or it is no tunnel object.
        """
        try:
            return cls._from_json(data)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            raise TunnelError("The dev tunnel service describes the codespace's tunnel in an unknown way.") from None

    @classmethod
    def _from_json(cls, data: Mapping[str, Any]) -> TunnelEndpoint:
        endpoints = [e for e in data.get("endpoints") or [] if e.get("connectionMode", "TunnelRelay") == "TunnelRelay"]
        if not endpoints:
            raise TunnelError(
                "Nothing is connected to the codespace's dev tunnel; the codespace may be starting or stopping. "
                "Try again in a moment."
            )
        uri = endpoints[0].get("clientRelayUri") or ""
        if len(endpoints) > 1:
            raise _no_single_relay()
        check_relay_address(uri)
        keys = tuple(map(str, endpoints[0].get("hostPublicKeys") or ()))
        return cls(uri, keys, frozenset(int(port["portNumber"]) for port in data.get("ports") or []))


def check_relay_address(uri: str) -> None:
    """Check where the tunnel's token would be sent.

    Raises:
        TunnelError: It is no address of a websocket, or the token would be readable on the way.
    """
    if not uri.startswith(("ws://", "wss://")):
        raise _no_single_relay()
    _must_be_encrypted(uri, "relay")


def _no_single_relay() -> TunnelError:
    return TunnelError("The codespace's dev tunnel gives no single relay address. Restart the codespace.")


def _must_be_encrypted(uri: str, what: str) -> None:
    """Refuse an address at which the tunnel's token would be readable on the way.

    Raises:
        TunnelError: It is one, and not on this machine.
    """
    if uri.startswith(("http://", "ws://")) and not is_loopback(uri):
        raise TunnelError(
            f"The dev tunnel's {what} at {uri} is not encrypted, so its token would be readable on the way. "
            "Check who answers for GitHub here: `codespace-kernels doctor`."
        )


def management_url(service_uri: str, cluster_id: str) -> httpx.URL:
    """Give the base address of the management API for a tunnel's cluster.

    The rule is that of Microsoft's Go SDK: `https://global.rel.tunnels…` becomes `https://{cluster}.rel.tunnels…`,
    unless the host is exempt, a custom domain (`cp.`) or begins with the cluster's name already. The host is compared
    with its port, so that `localhost:8080` is not exempt.

    Raises:
        TunnelError: The address is none, or not encrypted.
    """
    try:
        url = httpx.URL(service_uri)
    except (httpx.InvalidURL, ValueError):
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise TunnelError(f"GitHub gave an address of the dev tunnel service that is none: {service_uri!r}.")
    _must_be_encrypted(str(url), "service")
    host = url.netloc.decode()
    if cluster_id and host not in _EXEMPT_HOSTS and not host.startswith(("cp.", cluster_id)):
        url = url.copy_with(host=f"{cluster_id}.{url.host}".replace("global.", "", 1))
    return url.copy_with(path="/", query=None, fragment=None)


class TunnelManagement:
    """The management API for one tunnel.

    Args:
        properties: Which tunnel, and the token.
        context: TLS settings.
    """

    def __init__(self, properties: TunnelProperties, context: ssl.SSLContext) -> None:
        self._path = f"tunnels/{properties.tunnel_id}"
        self._client = httpx.AsyncClient(
            base_url=management_url(properties.service_uri, properties.cluster_id),
            # Reads as well as changes go by this token, as in gh.
            headers={"Authorization": f"Tunnel {properties.manage_ports_access_token}"},
            params={"api-version": API_VERSION},
            timeout=_TIMEOUT_SECONDS,
            verify=context,
        )

    async def get_endpoint(self) -> TunnelEndpoint:
        """Read the tunnel.

        Raises:
            TunnelRefusedError: The service refused; `token_expired` and `may_retry` tell what may help.
            TunnelError: It cannot be reached, or the tunnel has no host.
            WaitTimeoutError: No answer in time.
        """
        return TunnelEndpoint.from_json(await self.describe())

    async def describe(self) -> dict[str, Any]:
        """Read the tunnel object with its ports, as the service gives it. Raises as `get_endpoint` does."""
        response = await self._send("GET", self._path, "to describe the tunnel", params={"includePorts": "true"})
        return _json_object(response)

    async def get_port(self, port: int) -> dict[str, Any] | None:
        """Read a port; None where the tunnel does not have it. Raises as `get_endpoint` does."""
        try:
            return _json_object(await self._send("GET", self._port_path(port), f"to describe port {port}"))
        except TunnelRefusedError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise

    async def add_port(self, port: int, *, label: str) -> None:
        """Add a port that only the codespace's user may reach; one that is there is left as it is.

        Raises as `get_endpoint` does.
        """
        body = {
            "portNumber": port,
            "labels": [label],
            # What gh says of every new port, SSH's included.
            "protocol": "http",
            "portForwardingUris": None,
            "inspectionUri": "",
        }
        try:
            await self._send(
                "PUT", self._port_path(port), f"to add port {port}", json=body, headers={"If-None-Match": "*"}
            )
        except TunnelRefusedError as error:
            if error.status not in _EXISTS_STATUS:
                raise

    async def delete_port(self, port: int) -> None:
        """Take a port away; one that is not there is no error. Raises as `get_endpoint` does."""
        try:
            await self._send("DELETE", self._port_path(port), f"to delete port {port}")
        except TunnelRefusedError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise

    def _port_path(self, port: int) -> str:
        return f"{self._path}/ports/{port}"

    async def _send(self, method: str, path: str, what: str, **options: Any) -> httpx.Response:
        try:
            response = await self._client.request(method, path, **options)
        except httpx.TimeoutException:
            raise WaitTimeoutError.after(
                f"the dev tunnel service at {self._client.base_url.host}", _TIMEOUT_SECONDS, "Check your network."
            ) from None
        except httpx.HTTPError as error:
            raise TunnelError(
                f"The dev tunnel service at {self._client.base_url.host} cannot be reached: "
                f"{str(error) or type(error).__name__}. Check your network and proxy settings."
            ) from None
        logger.debug("%s %s: %d", method, path, response.status_code)
        if not response.is_success:
            retry_after = retry_after_seconds(response.headers.get("retry-after"))
            raise TunnelRefusedError(what, response.status_code, _problem(response), retry_after)
        return response

    async def close(self) -> None:
        """Close the client's connections."""
        await self._client.aclose()


def _json_object(response: httpx.Response) -> dict[str, Any]:
    try:
        data = response.json()
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise TunnelError(
            f"{response.url.host} does not answer like the dev tunnel service; a proxy may have answered instead."
        )
    return data


def _problem(response: httpx.Response) -> str:
    """Give what the service says of an error (problem details, RFC 9457), short."""
    try:
        data = response.json()
        text = data.get("detail") or data.get("title") or ""
    except (ValueError, AttributeError):
        text = ""
    return str(text)[:300].strip().rstrip(".")
