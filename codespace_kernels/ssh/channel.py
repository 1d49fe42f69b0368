"""paramiko's channel, made to tell an event loop what happens to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paramiko
from paramiko.common import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_WINDOW_ADJUST,
    cMSG_CHANNEL_REQUEST,
)

from codespace_kernels.ssh.chunk_pipe import ChunkPipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from paramiko.message import Message

    from codespace_kernels.ssh.session import SshSession


class ClientChannel(paramiko.Channel):
    """A channel of an `SshSession`.

    Attributes:
        session: The session that it belongs to.
        refused: Whether the peer refused a request on it (`exec`).
        lost: Whether the session ended before the peer had closed it.
    """

    if TYPE_CHECKING:
        # What paramiko's stubs leave out.
        def _set_transport(self, transport: paramiko.Transport) -> None: ...
        def _set_window(self, window_size: int, max_packet_size: int) -> None: ...
        def _window_adjust(self, message: Message) -> None: ...
        def _request_failed(self, message: Message) -> None: ...
        def _feed(self, message: Message) -> None: ...
        def _feed_extended(self, message: Message) -> None: ...

    def __init__(self, chanid: int, session: SshSession) -> None:
        super().__init__(chanid)
        self.in_buffer = ChunkPipe()
        self.session = session
        self.refused = False
        self.lost = False
        self._listener: Callable[[], None] | None = None
        self._fed: Callable[[], None] | None = None
        self._is_fed = False
        self._set_transport(session)

    # paramiko's buffers take a threading.Event to tell of data and of the end; these two make the channel one.

    def set(self) -> None:
        """Tell the listener that something changed; called from any thread, in the middle of the change."""
        if self._listener is not None and not self._is_fed:
            self._listener()

    def clear(self) -> None:
        """Accept that there is no data left; the listener looks for itself."""

    def listen(self, listener: Callable[[], None] | None, fed: Callable[[], None] | None = None) -> None:
        """Have somebody told, from any thread, of what happens to the channel.

        Args:
            listener: Called for new window, room to send and the end, where it may ask nothing of the channel yet.
            fed: Called for new data, which it may take at once.
        """
        self._listener = listener
        self._fed = fed or listener
        if listener is not None:
            self.in_buffer.set_event(self)  # type: ignore[arg-type]  # set() and clear() are all that is called
            self.in_stderr_buffer.set_event(self)  # type: ignore[arg-type]

    def _unlink(self) -> None:
        # paramiko tells the channels of a session's end before the session itself counts as ended.
        self.lost = not self.closed
        super()._unlink()  # type: ignore[misc]  # paramiko's stubs leave it out

    def request_exec(self, command: str) -> None:
        """Ask for a command to be run, without waiting for the answer.

        A refusal closes the channel and sets `refused`; what is sent meanwhile is lost with it. That saves a round
        trip against paramiko's `exec_command`, which has no time limit either.
        """
        self._request("exec", True, command)

    def request_subsystem(self, name: str) -> None:
        """Ask for a subsystem such as `sftp`, without waiting for the answer; a refusal is as with `request_exec`."""
        self._request("subsystem", True, name)

    def request_shell(self) -> None:
        """Ask for the user's shell, without waiting for the answer; a refusal is as with `request_exec`."""
        self._request("shell", True)

    def request_terminal(self, kind: str, columns: int, lines: int) -> None:
        """Ask for a pseudo-terminal, without waiting for the answer (RFC 4254, section 6.2)."""
        self._request("pty-req", True, kind, columns, lines, 0, 0, "")

    def tell_size(self, columns: int, lines: int) -> None:
        """Tell the pseudo-terminal's new size (RFC 4254, section 6.7)."""
        self._request("window-change", False, columns, lines, 0, 0)

    def _request(self, kind: str, wants_reply: bool, *fields: str | int) -> None:
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_REQUEST)
        message.add_int(self.remote_chanid)
        message.add_string(kind)
        message.add_boolean(wants_reply)
        for field in fields:
            if isinstance(field, str):
                message.add_string(field)
            else:
                message.add_int(field)
        self.session.send_user_message(message)


def _window_adjust(channel: ClientChannel, message: Message) -> None:
    paramiko.Channel._window_adjust(channel, message)  # type: ignore[attr-defined]
    channel.set()


def _request_failed(channel: ClientChannel, message: Message) -> None:
    channel.refused = True
    paramiko.Channel._request_failed(channel, message)  # type: ignore[attr-defined]


def _feed(channel: ClientChannel, message: Message) -> None:
    _feed_by(paramiko.Channel._feed, channel, message)  # type: ignore[attr-defined]


def _feed_extended(channel: ClientChannel, message: Message) -> None:
    _feed_by(paramiko.Channel._feed_extended, channel, message)  # type: ignore[attr-defined]


def _feed_by(feed: Callable[[ClientChannel, Message], None], channel: ClientChannel, message: Message) -> None:
    # paramiko's buffer tells that data comes before it is there.
    channel._is_fed = True
    try:
        feed(channel, message)
    finally:
        channel._is_fed = False
    _check_window(channel)
    if channel._fed is not None:
        channel._fed()


def _check_window(channel: ClientChannel) -> None:
    """End the session of a peer that sends more than it was allowed to; paramiko would keep all of it in memory."""
    if len(channel.in_buffer) + len(channel.in_stderr_buffer) > channel.in_window_size:
        raise paramiko.SSHException(f"it sent more than the {channel.in_window_size} bytes that it may")


# paramiko looks handlers up in a table of plain functions, so that overriding the methods would change nothing.
HANDLERS: dict[int, Callable[[ClientChannel, Message], None]] = {
    **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]
    MSG_CHANNEL_DATA: _feed,
    MSG_CHANNEL_EXTENDED_DATA: _feed_extended,
    MSG_CHANNEL_WINDOW_ADJUST: _window_adjust,
    MSG_CHANNEL_FAILURE: _request_failed,
}
