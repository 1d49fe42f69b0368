"""The HTTP side of the emulated dev-tunnel service: management API (2023-09-27-preview) and relay upgrade."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn

from tornado.web import Finish, RequestHandler

from codespace_kernels.emulator.relay import RelayStream, negotiate
from codespace_kernels.emulator.tunnel_tokens import TokenError
from codespace_kernels.emulator.tunnels import CLUSTER_ID, CONNECT, MANAGE_PORTS, Tunnel, TunnelService

if TYPE_CHECKING:
    from codespace_kernels.emulator.tunnel_host import TunnelHost

API_VERSION = "2023-09-27-preview"

_RELAY_PATH = "/api/v1/Connect/Client"
_READ = {"manage", MANAGE_PORTS, "host", "inspect", CONNECT}
_WRITE = {"manage", MANAGE_PORTS}
_PORTS = range(1, 65536)


def routes(service: TunnelService) -> list[tuple[str, type, dict[str, Any]]]:
    """Give the routes for a tornado application."""
    options = {"service": service}
    return [
        (r"/tunnels/([^/]+)", _TunnelHandler, options),
        (r"/tunnels/([^/]+)/ports", _PortsHandler, options),
        (r"/tunnels/([^/]+)/ports/([^/]+)", _PortHandler, options),
        (_RELAY_PATH + r"/([^/]+)", _RelayHandler, options),
    ]


class _Handler(RequestHandler):
    """Checks tokens and answers errors as problem details."""

    def initialize(self, service: TunnelService) -> None:
        self.service = service

    def authorize(self, tunnel_id: str, scopes: set[str]) -> Tunnel:
        tunnel = self.service.find(tunnel_id)
        if self.service.outage(tunnel, self):
            self.problem(HTTPStatus.SERVICE_UNAVAILABLE, "The service is not available.")
        if self._finished:
            raise Finish
        if tunnel is None:
            self.problem(HTTPStatus.NOT_FOUND, f"Tunnel {tunnel_id} was not found.")
        try:
            held = self.service.scopes(self.request.headers.get("Authorization", ""), tunnel)
        except TokenError as error:
            self.set_header("WWW-Authenticate", "Tunnel")
            self.problem(HTTPStatus.UNAUTHORIZED, str(error))
        if not held & scopes:
            self.problem(HTTPStatus.FORBIDDEN, f"The token lacks the scope {' or '.join(sorted(scopes))}.")
        return tunnel

    def problem(self, status: HTTPStatus, detail: str, **errors: list[str]) -> NoReturn:
        """Answer an error.

        Args:
            status: The HTTP status.
            detail: What is wrong, for a person.
            errors: Messages by the field that they are about.
        """
        self.set_status(status)
        self.set_header("Content-Type", "application/problem+json; charset=utf-8")
        title = "One or more validation errors occurred." if errors else status.phrase
        body = {"title": title, "status": status.value, "detail": detail, "errors": errors}
        raise Finish(json.dumps(body))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.set_header("Content-Type", "application/problem+json; charset=utf-8")
        self.finish(json.dumps({"title": HTTPStatus(status_code).phrase, "status": status_code}))


class _ApiHandler(_Handler):
    def prepare(self) -> None:
        if self.get_query_argument("api-version", "") != API_VERSION:
            text = f"The api-version must be {API_VERSION}."
            self.problem(HTTPStatus.BAD_REQUEST, text, **{"api-version": [text]})

    def number(self, text: str) -> int:
        number = int(text) if text.isdecimal() else 0
        if number not in _PORTS:
            self.problem(HTTPStatus.BAD_REQUEST, "A port number is 1 to 65535.", portNumber=[f"{text} is not valid."])
        return number


class _TunnelHandler(_ApiHandler):
    def get(self, tunnel_id: str) -> None:
        tunnel = self.authorize(tunnel_id, _READ)
        body: dict[str, Any] = {
            "clusterId": CLUSTER_ID,
            "tunnelId": tunnel.tunnel_id,
            "name": "",
            "description": "",
            "labels": [tunnel.codespace],
            "domain": "",
            "accessControl": {"entries": []},
            "options": {},
            "status": {"hostConnectionCount": 1 if tunnel.host else 0},
            "endpoints": [self._endpoint(tunnel, tunnel.host)] if tunnel.host else [],
        }
        if self.get_query_argument("includePorts", "").lower() == "true":
            body["ports"] = list(self.service.ports(tunnel).values())
        self.write(body)

    def _endpoint(self, tunnel: Tunnel, host: TunnelHost) -> dict[str, Any]:
        relay = self.service.base_url.replace("http", "ws", 1)
        return {
            "id": f"{host.host_id}-relay",
            "connectionMode": "TunnelRelay",
            "hostId": host.host_id,
            "hostPublicKeys": self.service.published_keys(tunnel, host),
            "portUriFormat": f"https://{tunnel.codespace}-{{port}}.app.github.dev/",
            "clientRelayUri": f"{relay}{_RELAY_PATH}/{tunnel.tunnel_id}",
        }


class _PortsHandler(_ApiHandler):
    def get(self, tunnel_id: str) -> None:
        tunnel = self.authorize(tunnel_id, _READ)
        self.write({"value": list(self.service.ports(tunnel).values())})


class _PortHandler(_ApiHandler):
    def get(self, tunnel_id: str, text: str) -> None:
        tunnel = self.authorize(tunnel_id, _READ)
        port = self.service.ports(tunnel).get(self.number(text))
        if port is None:
            self.problem(HTTPStatus.NOT_FOUND, f"Tunnel port {text} was not found.")
        self.write(port)

    def put(self, tunnel_id: str, text: str) -> None:
        tunnel = self.authorize(tunnel_id, _WRITE)
        number = self.number(text)
        wish = self._wish(number)
        exists = number in self.service.ports(tunnel)
        if exists and self.request.headers.get("If-None-Match") == "*":
            # Not settled whether the real service answers 409, 412 or 200; 409 with this code was seen.
            self.set_header("X-Ms-Error-Code", "TunnelPortConflict")
            self.problem(HTTPStatus.CONFLICT, f"Tunnel port {number} exists already.")
        self.set_status(HTTPStatus.OK if exists else HTTPStatus.CREATED)
        self.write(self.service.set_port(tunnel, number, wish))

    def delete(self, tunnel_id: str, text: str) -> None:
        tunnel = self.authorize(tunnel_id, _WRITE)
        if not self.service.delete_port(tunnel, self.number(text)):
            self.problem(HTTPStatus.NOT_FOUND, f"Tunnel port {text} was not found.")
        self.set_status(HTTPStatus.NO_CONTENT)

    def _wish(self, number: int) -> dict[str, Any]:
        try:
            wish = json.loads(self.request.body or b"{}")
        except ValueError:
            wish = None
        if not isinstance(wish, dict):
            self.problem(HTTPStatus.BAD_REQUEST, "The body is not a JSON object.")
        if wish.get("portNumber", number) != number:
            text = "The port number differs from the one in the address."
            self.problem(HTTPStatus.BAD_REQUEST, text, portNumber=[text])
        return wish


class _RelayHandler(_Handler):
    """Turns an upgrade request into a relay connection."""

    def get(self, tunnel_id: str) -> None:
        tunnel = self.authorize(tunnel_id, {CONNECT})
        if refusal := self.service.relay_refusal(tunnel):
            self.problem(HTTPStatus(refusal), "The relay does not take this client.")
        if tunnel.host is None:
            self.problem(HTTPStatus.NOT_FOUND, "No host is connected to the tunnel.")
        protocol, response = negotiate(self.request.uri or "/", self.request.headers.get_all())
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self.problem(HTTPStatus(response.status_code), response.body.decode().strip())
        stream = self.detach()
        # A descriptor of our own: closing tornado's takes the connection off its loop and leaves ours open.
        sock = stream.socket.dup()
        stream.close()
        self.service.open_relay(tunnel, RelayStream(sock, protocol, response))
