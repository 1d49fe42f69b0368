"""Addresses of Jupyter servers as people paste them."""

from __future__ import annotations

import dataclasses
import ipaddress
import urllib.parse

from codespace_kernels.errors import SettingsError

_PAGES = frozenset(
    {"lab", "tree", "notebooks", "edit", "consoles", "doc", "login", "nbclassic", "retro", "voila", "api"}
)
"""First path segment of a server's own pages; what stands before it is the server's base."""


@dataclasses.dataclass(frozen=True)
class ServerUrl:
    """A Jupyter server with a fixed token; a `providers.base.JupyterUrl`.

    Attributes:
        base_url: Address with a trailing slash.
        token: Empty for a server that asks for none.
    """

    base_url: str
    token: str = dataclasses.field(default="", repr=False)

    async def headers(self) -> dict[str, str]:
        """Give the header that authenticates; none without a token."""
        return {"Authorization": f"token {self.token}"} if self.token else {}


def parse_server_url(text: str) -> ServerUrl:
    """Read what a browser's address bar or a server's log shows: `http://host:8888/base/lab?token=…`.

    Raises:
        SettingsError: No http address with a host. The text is not repeated: it may hold a token.
    """
    try:
        parts = urllib.parse.urlsplit(text.strip())
        port = parts.port
    except ValueError:
        parts, port = urllib.parse.SplitResult("", "", "", "", ""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError("This is no address of a Jupyter server. It looks like http://localhost:8888/lab?token=….")
    if parts.username or parts.password:
        raise SettingsError("A Jupyter server's address cannot hold a user name or password. Use ?token=… instead.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    netloc = f"{host}:{port}" if port else host
    token = urllib.parse.parse_qs(parts.query).get("token", [""])[0]
    return ServerUrl(f"{parts.scheme}://{netloc}{_base_path(parts.path)}", token)


def is_loopback(url: str) -> bool:
    """Whether an address is one of this machine."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _base_path(path: str) -> str:
    segments = [segment for segment in path.split("/") if segment]
    for index, segment in enumerate(segments):
        # JupyterHub puts a user's name behind `user`, and somebody may be called lab.
        if segment in _PAGES and (index == 0 or segments[index - 1] != "user"):
            segments = segments[:index]
            break
    return "/".join(["", *segments, ""])
