"""`codespace-kernels ssh NAME [-- COMMAND …]`: a shell in a codespace, or one command there; a stopped one is started.

Ends with the command's exit code. A command's stdin, stdout and stderr are this program's; with `--json`, stdout gets
what the command wrote and how it ended instead.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shlex
import signal
import stat
import sys
from typing import TYPE_CHECKING, Any

from codespace_kernels import platforms
from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal
from codespace_kernels.errors import CodespaceKernelsError, SettingsError, WorkspaceConnectionError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from codespace_kernels.connection import Connection, Session
    from codespace_kernels.providers.base import Provider

NOTICE_SECONDS = 60.0
"""Between notices that keep the codespace awake while bytes move, as `gh` sends them."""

LOST = 255
"""Exit code where the connection was lost, as OpenSSH's client has it."""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "ssh", description=__doc__, parents=[shared.workspace(), shared.account(), shared.transport(), shared.output()]
    )
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="for the remote shell, after --")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Run a shell or a command."""
    if platforms.is_windows():
        raise SettingsError("This shell needs a Unix terminal. Use `gh codespace ssh` on Windows.")
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    # One word is for the remote shell as it is; several are one command's words, as a local shell would hand them on.
    command = words[0] if len(words) == 1 else shlex.join(words)
    if options.json and not command:
        raise SettingsError("--json tells how a command ended. Give one: codespace-kernels ssh --json NAME -- COMMAND")
    return asyncio.run(_run(options, command))


async def _run(options: argparse.Namespace, command: str) -> int:
    async with shared.open_provider(shared.chosen_access(options)) as provider:
        name, connection = await _connect(provider, options.name)
        if options.json:
            return await _report(provider, name, connection, command)
        with_terminal = not command and terminal.is_interactive() and sys.stdout.isatty()
        size = os.get_terminal_size(sys.stdout.fileno()) if with_terminal else None
        kind = os.environ.get("TERM", "xterm")
        session = await connection.open_session(command, terminal=kind, size=size, on_stderr=write_stderr)
        async with _noticing(provider, name, session):
            return await _attend(session, write_stdout, raw=with_terminal)


async def _report(provider: Provider, name: str, connection: Connection, command: str) -> int:
    stdout, stderr = bytearray(), bytearray()
    session = await connection.open_session(command, on_stderr=stderr.extend)
    async with _noticing(provider, name, session):
        status = await _attend(session, stdout.extend)
    terminal.print_json(
        {
            "codespace": name,
            "exit_code": status,
            "stdout": stdout.decode(errors="replace"),
            "stderr": stderr.decode(errors="replace"),
        }
    )
    return status


async def _connect(provider: Provider, wanted: str) -> tuple[str, Connection]:
    with terminal.progress() as progress:
        workspace = await provider.resolve(wanted)
        await provider.ensure_running(workspace.name, progress)
        return workspace.name, await provider.connect(workspace.name, progress)


@contextlib.asynccontextmanager
async def _noticing(provider: Provider, name: str, session: Session) -> AsyncIterator[None]:
    async def notice() -> None:
        seen = session.carried
        while True:
            await asyncio.sleep(NOTICE_SECONDS)
            if session.carried != seen:
                seen = session.carried
                with contextlib.suppress(CodespaceKernelsError):
                    await provider.notify_activity(name)

    task = asyncio.create_task(notice())
    try:
        yield
    finally:
        task.cancel()


async def _attend(session: Session, on_stdout: Callable[[bytes], None], *, raw: bool = False) -> int:
    """Carry this program's stdin and the session's stdout until it ends; give its exit code."""
    sending = asyncio.create_task(_send_stdin(session))
    try:
        with _raw_terminal(session) if raw else contextlib.nullcontext():
            while data := await session.read():
                on_stdout(data)
            return await _exit_code(session)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        session.close()


async def _exit_code(session: Session) -> int:
    await session.wait_closed()
    status = session.exit_status
    if status >= 0:
        return status
    raise WorkspaceConnectionError("The session ended without an exit code: a signal ended it, or the connection.")


async def _send_stdin(session: Session) -> None:
    if not _can_be_waited_for(sys.stdin.fileno()):
        while data := os.read(sys.stdin.fileno(), 65536):
            await session.write(data)
        session.write_eof()
        return
    reader = asyncio.StreamReader()
    connect = asyncio.get_running_loop().connect_read_pipe
    transport, _ = await connect(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while data := await reader.read(65536):
            await session.write(data)
        session.write_eof()
    finally:
        transport.close()


def _can_be_waited_for(descriptor: int) -> bool:
    """Tell whether reading may block; a file and /dev/null always have an answer, and no event loop takes them."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            # Stdin and stdout of a terminal are one thing, which the event loop has made non-blocking.
            os.set_blocking(descriptor, True)


def write_stdout(data: bytes) -> None:
    """Pass on what the command writes to its stdout."""
    _write(sys.stdout.fileno(), data)


def write_stderr(data: bytes) -> None:
    """Pass on what the command writes to its stderr."""
    _write(sys.stderr.fileno(), data)


@contextlib.contextmanager
def _raw_terminal(session: Session) -> Iterator[None]:
    """Let every key through to the other side, and tell it when the window changes."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()
    # What was typed while the codespace started is for the shell.
    tty.setraw(descriptor, termios.TCSADRAIN)
    loop.add_signal_handler(signal.SIGWINCH, lambda: session.resize(os.get_terminal_size(sys.stdout.fileno())))
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
        os.set_blocking(descriptor, True)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
