"""The emulated dev-tunnel service: which tunnels exist, who hosts them, which relays are open.

The HTTP side of it is in `tunnels_api`.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from codespace_kernels.emulator.outage import strike
from codespace_kernels.emulator.tunnel_tokens import TokenError, TokenIssuer

if TYPE_CHECKING:
    from tornado.web import RequestHandler

    from codespace_kernels.emulator.faults import Fault, FaultBoard
    from codespace_kernels.emulator.relay import RelayStream
    from codespace_kernels.emulator.tunnel_host import TunnelHost

logger = logging.getLogger(__name__)

CLUSTER_ID = "127"
"""A client puts `{clusterId}.` before the service's host unless the host begins so: 127.0.0.1 does."""

CONNECT, MANAGE_PORTS = "connect", "manage:ports"

_OTHER_KEY = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(32)).decode()
"""The form of a key, which no host has."""

TOKEN_LIFETIME = 24 * 3600.0
"""Seconds. The real lifetime for codespaces is not known; a day was seen on another product's token."""


@dataclasses.dataclass
class Tunnel:
    """One tunnel.

    Attributes:
        tunnel_id: Its id.
        codespace: Name of the codespace it leads to.
        host: Its host while the codespace runs.
        ports: TunnelPort objects by port number.
        relays: Open relay connections.
        half_open: Connections of which only the client's end is left.
    """

    tunnel_id: str
    codespace: str
    host: TunnelHost | None = None
    ports: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)
    relays: set[RelayStream] = dataclasses.field(default_factory=set)
    half_open: set[RelayStream] = dataclasses.field(default_factory=set)


def tunnel_id_for(codespace: str) -> str:
    """Give the id of a codespace's tunnel: eight letters and digits, the same for the same name."""
    number = int.from_bytes(hashlib.sha256(codespace.encode()).digest()[:8], "big")
    digits = "0123456789bcdfghjklmnpqrstvwxz"
    text = ""
    for _ in range(8):
        number, digit = divmod(number, len(digits))
        text += digits[digit]
    return text


class TunnelService:
    """All tunnels of one emulator. Safe to use from any thread.

    Attributes:
        base_url: Where the service answers, such as `http://127.0.0.1:8080`; set by the server once it listens.
        relay_connections: How many relay websockets were ever opened.
        token_lifetime: Seconds that new tokens are good for.
    """

    def __init__(self, faults: FaultBoard) -> None:
        self.base_url = ""
        self.relay_connections = 0
        self.token_lifetime = TOKEN_LIFETIME
        self._faults = faults
        self._issuer = TokenIssuer()
        self._lock = threading.Lock()
        self._tunnels: dict[str, Tunnel] = {}
        faults.subscribe(self._fault_changed)

    @property
    def open_relays(self) -> int:
        """How many relay websockets are open now."""
        with self._lock:
            return sum(len(tunnel.relays) for tunnel in self._tunnels.values())

    def handlers(self) -> list[tuple[str, type, dict[str, Any]]]:
        """Give the routes for a tornado application: management API and relay."""
        from codespace_kernels.emulator import tunnels_api

        return tunnels_api.routes(self)

    def register(self, codespace: str, host: TunnelHost, ports: list[int]) -> Tunnel:
        """Take a host that is ready for clients.

        Args:
            codespace: Name of the codespace that it stands in.
            host: The host.
            ports: The ports that the tunnel has from the beginning; labelled as internal.
        """
        tunnel_id = tunnel_id_for(codespace)
        with self._lock:
            tunnel = self._tunnels.setdefault(tunnel_id, Tunnel(tunnel_id, codespace))
            tunnel.host = host
            tunnel.ports = {}
        for port in ports:
            self.set_port(tunnel, port, {"labels": ["InternalPort"], "protocol": "http"})
        return tunnel

    def unregister(self, codespace: str) -> None:
        """Let go of a codespace's host. Its tunnel stays known, without endpoint and ports; relays are cut."""
        tunnel = self.find(tunnel_id_for(codespace))
        if tunnel is None:
            return
        with self._lock:
            tunnel.host = None
            tunnel.ports = {}
            relays = list(tunnel.relays)
        for relay in relays:
            relay.close()
        self._reset_half_open(codespace)

    def find(self, tunnel_id: str) -> Tunnel | None:
        """Give the tunnel with this id."""
        with self._lock:
            return self._tunnels.get(tunnel_id)

    def set_port(self, tunnel: Tunnel, number: int, wish: dict[str, Any]) -> dict[str, Any]:
        """Create or replace a port.

        Args:
            tunnel: The tunnel.
            number: Port number on the machine.
            wish: TunnelPort object as a client sends it; other fields than those it may set are not taken.

        Returns:
            The whole TunnelPort object.
        """
        port = {
            "clusterId": CLUSTER_ID,
            "tunnelId": tunnel.tunnel_id,
            "portNumber": number,
            "name": wish.get("name") or "",
            "description": wish.get("description") or "",
            "labels": list(wish.get("labels") or []),
            "protocol": wish.get("protocol") or "auto",
            "isDefault": bool(wish.get("isDefault")),
            "accessControl": {"entries": [], **(wish.get("accessControl") or {})},
            "options": wish.get("options") or {},
            "status": {},
            "portForwardingUris": [f"https://{tunnel.codespace}-{number}.app.github.dev/"],
            "inspectionUri": f"https://{tunnel.codespace}-{number}-inspect.app.github.dev/",
        }
        with self._lock:
            tunnel.ports[number] = port
        return port

    def ports(self, tunnel: Tunnel) -> dict[int, dict[str, Any]]:
        """Give the tunnel's ports by number, in order."""
        with self._lock:
            return dict(sorted(tunnel.ports.items()))

    def delete_port(self, tunnel: Tunnel, number: int) -> bool:
        """Remove a port; false when there is none."""
        with self._lock:
            return tunnel.ports.pop(number, None) is not None

    def mint(self, codespace: str, scope: str) -> str:
        """Make a token of a scope for a codespace's tunnel; an expired one under the fault `token-expired`."""
        lifetime = -60.0 if self._all_tokens_expired(codespace) else self.token_lifetime
        return self._issuer.mint(tunnel_id_for(codespace), CLUSTER_ID, scope, lifetime)

    def scopes(self, authorization: str, tunnel: Tunnel) -> set[str]:
        """Check an `Authorization: Tunnel …` header and give the token's scopes.

        Raises:
            TokenError: There is no token that is good for this tunnel.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "tunnel" or not token:
            raise TokenError("A tunnel access token is required.")
        if self._all_tokens_expired(tunnel.codespace):
            self._faults.take("token-expired", tunnel.codespace)
            raise TokenError("The token has expired.")
        return self._issuer.scopes(token.strip(), tunnel.tunnel_id)

    def _all_tokens_expired(self, codespace: str) -> bool:
        fault = self._faults.get("token-expired", codespace)
        return fault is not None and fault.options["which"] == "all"

    def outage(self, tunnel: Tunnel | None, request: RequestHandler) -> bool:
        """Do to a request what the fault `api-down` orders; see `outage.strike`."""
        codespace = tunnel.codespace if tunnel else ""
        fault = self._faults.get("api-down", codespace)
        if fault is None or not fault.options["tunnels"]:
            return False
        return strike(self._faults, codespace, request)

    def published_keys(self, tunnel: Tunnel, host: TunnelHost) -> list[str]:
        """Give the host keys that the service publishes; under the fault `host-key` another one, or none."""
        fault = self._faults.get("host-key", tunnel.codespace)
        if fault is None:
            return [host.public_key]
        return [] if fault.options["publishes"] == "none" else [_OTHER_KEY]

    def relay_refusal(self, tunnel: Tunnel) -> int:
        """Give the status with which the relay refuses a client; 0 where it does not."""
        fault = self._faults.take("relay-refusal", tunnel.codespace)
        return int(fault.options["status"]) if fault else 0

    def open_relay(self, tunnel: Tunnel, stream: RelayStream) -> None:
        """Give a new relay connection to the tunnel's host."""
        with self._lock:
            host = tunnel.host
            self.relay_connections += 1
            tunnel.relays.add(stream)
        for kind in ("relay-blackhole", "relay-slow"):
            if fault := self._faults.get(kind, tunnel.codespace):
                _hinder(stream, fault)
        if host is None:
            stream.free()
            self._relay_ended(tunnel, stream)
            return
        logger.info("relay to %s opened", tunnel.codespace)
        host.serve(stream, lambda: self._relay_ended(tunnel, stream))

    def _relay_ended(self, tunnel: Tunnel, stream: RelayStream) -> None:
        with self._lock:
            tunnel.relays.discard(stream)
        logger.info("relay to %s closed", tunnel.codespace)

    def _relays(self, codespace: str | None) -> list[RelayStream]:
        with self._lock:
            return [
                relay
                for tunnel in self._tunnels.values()
                if codespace in (None, tunnel.codespace)
                for relay in tunnel.relays
            ]

    def _fault_changed(self, fault: Fault, active: bool) -> None:
        if fault.kind == "relay-drop" and active:
            for relay in self._relays(fault.codespace):
                relay.drop()
        elif fault.kind in ("relay-blackhole", "relay-slow"):
            for relay in self._relays(fault.codespace):
                _hinder(relay, fault) if active else _unhinder(relay, fault)
        elif fault.kind == "relay-half-open":
            (self._orphan if active else self._reset_half_open)(fault.codespace)
        elif fault.kind == "token-expired" and active and fault.options["which"] == "old":
            self._issuer.expire(tunnel_id_for(fault.codespace) if fault.codespace else None)

    def _orphan(self, codespace: str | None) -> None:
        """Take their other end from open relays; the connections stay until `_reset_half_open`."""
        with self._lock:
            for tunnel in self._tunnels.values():
                if codespace in (None, tunnel.codespace):
                    tunnel.half_open |= tunnel.relays
        for relay in self._relays(codespace):
            relay.abandon()

    def _reset_half_open(self, codespace: str | None) -> None:
        with self._lock:
            relays: set[RelayStream] = set()
            for tunnel in self._tunnels.values():
                if codespace in (None, tunnel.codespace):
                    relays |= tunnel.half_open
                    tunnel.half_open = set()
        for relay in relays:
            relay.reset()


def _hinder(relay: RelayStream, fault: Fault) -> None:
    if fault.kind == "relay-slow":
        relay.slow_down(float(fault.options["mbit"]) * 125_000)
        return
    seconds = float(fault.options["seconds"])
    logger.info("relay held for %s", f"{seconds:g} s" if seconds else "ever, until released")
    # A relay that is opened meanwhile is held for the rest of the time.
    left = max(seconds - (time.monotonic() - fault.since), 0.001) if seconds else None
    relay.hold(left, str(fault.options["direction"]))


def _unhinder(relay: RelayStream, fault: Fault) -> None:
    if fault.kind == "relay-slow":
        relay.slow_down(None)
    else:
        relay.release()
