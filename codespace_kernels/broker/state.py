"""What a broker leaves on disk for the next one: which kernels it has, and the sessions of their workspaces.

The file holds the keys of connection files, as those do, so it is private like them (0600 in a folder of 0700). Tokens
never stand in it: variables that hold one are left out, and looked up anew.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
from typing import TYPE_CHECKING

from codespace_kernels import __version__
from codespace_kernels.broker.protocol import Access, KernelRequest
from codespace_kernels.link.kernel import LinkKernel
from codespace_kernels.messages import Channel, Message
from codespace_kernels.settings import state_dir
from codespace_kernels.strict_data import UnsoundDataError, read
from codespace_kernels.target import Account

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from codespace_kernels.remote_kernel import RemoteKernel

log = logging.getLogger(__name__)

PRODUCT, VERSION = "codespace-kernels broker", 1
"""What the file says it is."""

MAX_BYTES = 64 * 1024 * 1024
"""A larger file is not read."""

MAX_WAITING = 1024 * 1024
"""Bytes of requests that wait, of one kernel, that are written down."""

NO_LINK = -1

MAX_ASIDE = 5
"""How many files that cannot be used are kept; the last one is replaced."""


@dataclasses.dataclass(frozen=True)
class SavedRemote:
    """A kernel in a workspace, as the link has it.

    Attributes:
        kernel_id: Its id there.
        number: On the link; `NO_LINK` where a server that is not ours has it.
        key, signature_scheme: With which it signs.
    """

    kernel_id: str
    number: int
    key: str = dataclasses.field(repr=False)
    signature_scheme: str


@dataclasses.dataclass(frozen=True)
class SavedRequest:
    """A request of a client that waits for its kernel.

    Attributes:
        channel: Its channel's number.
        frames: Its frames in base64, of which so many are identities.
        identities: How many.
    """

    channel: int
    frames: tuple[str, ...] = dataclasses.field(repr=False)
    identities: int

    @classmethod
    def of(cls, channel: Channel, message: Message) -> SavedRequest:
        """Write one down."""
        frames = (*message.identities, *message[1:5], *message.buffers)
        return cls(int(channel), tuple(base64.b64encode(frame).decode() for frame in frames), len(message.identities))

    def read(self) -> tuple[Channel, Message]:
        """Give it back.

        Raises:
            ValueError: It is none.
        """
        frames = [base64.b64decode(frame, validate=True) for frame in self.frames]
        if not 0 <= self.identities <= len(frames) - 4:
            raise ValueError("a request without all its frames")
        header, parent, metadata, content, *buffers = frames[self.identities :]
        identities = tuple(frames[: self.identities])
        message = Message(identities, header, parent, metadata, content, tuple(buffers))
        message.header_dict()
        return Channel(self.channel), message


@dataclasses.dataclass(frozen=True)
class SavedKernel:
    """A kernel of the broker.

    Attributes:
        id: What the broker calls it.
        request: Of its front end, without tokens; its ports are those that it has.
        workspace: Name of its workspace; empty while it has none.
        notebook: Path of its notebook.
        kept: Whether no front end held it.
        dead: Whether it is dead, and its front end may restart it.
        since: Unix time at which its front end went; 0 for one that is held.
        remote: The kernel there; None while there is none.
        starting: Its id there, while it is being started; else empty.
        waiting: What its clients asked while there is none.
    """

    id: str
    request: KernelRequest
    workspace: str
    notebook: str
    kept: bool
    dead: bool
    since: float
    remote: SavedRemote | None
    waiting: tuple[SavedRequest, ...] = ()
    starting: str = ""


@dataclasses.dataclass(frozen=True)
class SavedWorkspace:
    """A workspace to which a link led.

    Attributes:
        account: Whose.
        name: Of the workspace.
        repository: What it is a clone of, see `WorkspaceSession`.
        link: Id of the link's session.
    """

    account: Account
    name: str
    repository: str
    link: str


@dataclasses.dataclass(frozen=True)
class SavedState:
    """All of it."""

    workspaces: tuple[SavedWorkspace, ...] = ()
    kernels: tuple[SavedKernel, ...] = ()


def state_path() -> Path:
    """Give the path of the file."""
    return state_dir() / "broker-state.json"


def links_folder() -> Path:
    """Give the folder of the links' journals; made when missing."""
    folder = state_dir() / "links"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def without_tokens(request: KernelRequest, ports: dict[str, int]) -> KernelRequest:
    """Give a request as it may be written down, with the ports that its kernel has."""
    environment = {name: text for name, text in request.access.environment.items() if "TOKEN" not in name}
    access = Access(request.access.account, environment, request.access.transport)
    return dataclasses.replace(request, access=access, ports=ports, resume="")


def saved_requests(waiting: Iterable[tuple[Channel, Message]]) -> tuple[SavedRequest, ...]:
    """Give what is to be written down of requests that wait, as far as they are not too large."""
    size, saved = 0, []
    for channel, message in waiting:
        size += sum(map(len, message[1:5])) + sum(map(len, message.buffers))
        if size > MAX_WAITING:
            log.warning("requests that wait are not written down: there are more than %d bytes of them", MAX_WAITING)
            break
        saved.append(SavedRequest.of(channel, message))
    return tuple(saved)


def saved_remote(kernel: RemoteKernel | None) -> SavedRemote | None:
    """Give what is to be written down of a remote kernel."""
    if kernel is None:
        return None
    if isinstance(kernel, LinkKernel):
        return SavedRemote(kernel.kernel_id, kernel.number, kernel.signing["key"], kernel.signing["signature_scheme"])
    return SavedRemote(kernel.kernel_id, NO_LINK, "", "")


def to_text(state: SavedState) -> str:
    """Give the file's content."""
    head = {"product": PRODUCT, "version": VERSION, "software": __version__}
    return json.dumps({**head, **dataclasses.asdict(state)})


def from_text(text: str | bytes) -> SavedState:
    """Read the file's content.

    Raises:
        UnsoundDataError: It is not a whole one of this version; says why.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise UnsoundDataError("it is no JSON") from None
    if not isinstance(data, dict) or data.pop("product", None) != PRODUCT:
        raise UnsoundDataError("it is not of this program")
    version, software = data.pop("version", None), data.pop("software", None)
    if version != VERSION:
        raise UnsoundDataError(f"it is of version {version!r:.20}, written by {software!r:.40}")
    state = read(SavedState, data)
    _check(state)
    return state


def _check(state: SavedState) -> None:
    ids = [kernel.id for kernel in state.kernels]
    places = [(workspace.account.key, workspace.name) for workspace in state.workspaces]
    numbers = [
        (kernel.request.access.account.key, kernel.workspace, kernel.remote.number)
        for kernel in state.kernels
        if kernel.remote is not None and kernel.remote.number != NO_LINK
    ]
    if any(len({*things}) < len(things) for things in (ids, places, numbers)):
        raise UnsoundDataError("it names something twice")
    starting = [kernel.starting for kernel in state.kernels if kernel.starting]
    if not all(_is_id(name) for name in (*ids, *starting, *(workspace.link for workspace in state.workspaces))):
        raise UnsoundDataError("it has an id that is none")
    if any(not 0 < number < 1 << 32 for _, _, number in numbers):
        raise UnsoundDataError("it has a number that is none")
    try:
        for kernel in state.kernels:
            for request in kernel.waiting:
                request.read()
    except ValueError as error:
        raise UnsoundDataError(f"it has a request that is none: {error}") from None
    if any(not 0 < port < 65536 for kernel in state.kernels for port in kernel.request.ports.values()):
        raise UnsoundDataError("it has a port that is none")


def _is_id(text: str) -> bool:
    """Tell whether a text may be a part of a file's name, and of a request's path."""
    return 8 <= len(text) <= 64 and all(character in "0123456789abcdef-" for character in text)


def load(path: Path) -> tuple[SavedState, str]:
    """Read the state that another broker has left; what cannot be used is set aside.

    Returns:
        The state, and what a person should know of it; mostly nothing.
    """
    try:
        return from_text(_read(path)), ""
    except FileNotFoundError:
        return SavedState(), ""
    except (OSError, UnsoundDataError) as error:
        notice = f"The state of the broker before this one was not used ({error}). It is kept as {set_aside(path)}."
        log.warning("%s", notice)
        return SavedState(), notice


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise UnsoundDataError("it is too large")
    return path.read_bytes()


def set_aside(path: Path) -> Path:
    """Give a file another name, under which nobody trusts it; give that, or the old one where it cannot be moved."""
    names = [path.with_name(f"{path.name}.set-aside-{number}") for number in range(1, MAX_ASIDE + 1)]
    target = next((name for name in names if not name.exists()), names[-1])
    try:
        return path.replace(target)
    except OSError as error:
        log.warning("%s cannot be set aside: %s", path, error)
        return path
