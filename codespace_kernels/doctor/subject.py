"""What is examined, and what the checks have found out for those behind them."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from codespace_kernels.doctor.api import Api
from codespace_kernels.github.hosts import host_of
from codespace_kernels.progress import silent

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from codespace_kernels.broker.protocol import Access
    from codespace_kernels.doctor.reach import Reach
    from codespace_kernels.errors import HostKeyError
    from codespace_kernels.github.tokens import Token
    from codespace_kernels.progress import Progress
    from codespace_kernels.providers.base import Workspace
    from codespace_kernels.ssh.connection import SshConnection
    from codespace_kernels.ssh.hostkeys import PinnedKey
    from codespace_kernels.tunnel.properties import TunnelProperties
    from codespace_kernels.tunnel.tunnel import Tunnel


@dataclasses.dataclass
class Subject:
    """What is examined.

    Attributes:
        access: The account, and how codespaces are reached.
        env: The environment in which tokens and programs are looked for.
        name: The codespace that is to be examined, as it was given; empty for none.
        may_start: Whether it may be started.
        progress: Hears of what takes long.
        token: The token that GitHub is asked with; None where none was found.
        user: The answer to `GET /user`, whatever it was.
        codespaces: The account's codespaces as GitHub describes them; None where it did not.
        listed: The answer that lists them.
        workspace: The codespace that `name` means.
        internal: Its internal form, of which only keys and types may be shown.
        properties: What leads to its tunnel.
        description: The tunnel, as the management API describes it.
        tunnel: The open tunnel.
        tunnel_key_problem: Why the tunnel's host was not believed.
        ssh: The open session.
        ssh_key: The host key that the SSH server showed.
        inside: What was found in the codespace (see `remote.examination`).
        reaches: How far the way to each host led.
    """

    access: Access
    env: Mapping[str, str]
    name: str = ""
    may_start: bool = False
    progress: Progress = silent
    token: Token | None = None
    user: httpx.Response | None = None
    listed: httpx.Response | None = None
    codespaces: list[dict[str, Any]] | None = None
    workspace: Workspace | None = None
    internal: dict[str, Any] | None = None
    properties: TunnelProperties | None = None
    description: dict[str, Any] | None = None
    tunnel: Tunnel | None = None
    tunnel_key_problem: HostKeyError | None = None
    ssh: SshConnection | None = None
    ssh_key: PinnedKey | None = None
    inside: dict[str, Any] | None = None
    reaches: list[Reach] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.api = Api(self.access.account)
        self.closing = contextlib.AsyncExitStack()
        self.closing.push_async_callback(self.api.close)

    @property
    def api_url(self) -> str:
        """Base of the account's REST API."""
        return self.access.account.api_url

    @property
    def host(self) -> str:
        """The GitHub host that the account belongs to."""
        return host_of(self.api_url)

    @property
    def login(self) -> str:
        """Who is signed in; empty where that is not known."""
        return str(self.api.document(self.user).get("login") or "")

    async def close(self) -> None:
        """Close everything that checks have opened."""
        await self.closing.aclose()
