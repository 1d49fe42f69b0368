"""Brings up the Jupyter server in a workspace and opens the link to it.

The code that runs there (`remote/` and the common parts of `link/` and `zmtp/`) is one zip whose path holds a digest of
its content: it is sent when it is missing and never changes. One command is the whole way. Where the server runs
already, it becomes the link's stream at once; else a script in the zip finds or starts a server and becomes the stream
then. What the link says first is sent along with the command, and waits there until somebody reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import io
import json
import logging
import shlex
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from codespace_kernels.errors import NoJupyterError, RemoteServerError, WaitTimeoutError, WorkspaceConnectionError
from codespace_kernels.plain_text import one_line
from codespace_kernels.progress import ProgressEvent, silent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from codespace_kernels.connection import Connection, Stream
    from codespace_kernels.progress import Progress

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_MARK = b"codespace-kernels: "
_DATA = ".local/share/codespace-kernels"
_MAX_CHATTER = 1 << 20
"""Bytes; a shell that says more than this before our script's first word is taken for something else."""

_MAX_MESSAGE = 300
"""Characters of a step that the script tells."""

_COMMON = (
    "__init__.py",
    *(f"link/{name}.py" for name in ("__init__", "commands", "frames", "receipts", "session", "window")),
    *(f"zmtp/{name}.py" for name in ("__init__", "commands", "frames", "greeting", "mechanisms")),
)
_MAIN = "from codespace_kernels.remote.bootstrap import main\n\nmain()\n"

_ATTACH = """
d="$HOME/{data}/{digest}"
[ -r "$d/attach" ] && . "$d/attach"
echo 'codespace-kernels: {{"result": "missing"}}'
"""

_ENSURE = """
d="$HOME/{data}/{digest}" b="$HOME/{data}/{digest}/bundle.zip" f={bootstrap}
take() {{
  umask 077
  mkdir -p "$d" || return
  t="$d/.bundle.$$"
  echo 'codespace-kernels: {{"want": "bundle"}}'
  head -c {incoming} | tail -c +{first} >"$t"
  [ "$(wc -c <"$t")" -eq {size} ] && mv -f "$t" "$b" || {{ rm -f "$t"; false; }}
}}
if [ -r "$b" ]; then
  [ -r "$d/attach" ] && . "$d/attach"
elif ! take; then
  echo 'codespace-kernels: {{"result": "no_bundle"}}'
  exit
fi
exec sh -c "$f"
"""
"""`attach` never returns where it can be run: it becomes the link or, where nobody listens any more, runs `$f`."""

_BOOTSTRAP = """
try() {{
  p=$(command -v "$1") || return
  "$p" -c "import sys; sys.exit(sys.version_info < (3, 8))" </dev/null >/dev/null 2>&1 || return
  exec "$p" -I "$b" {arguments}
}}
for p in python3 python /usr/local/python/current/bin/python3 /opt/conda/bin/python3 /usr/local/bin/python3; do
  try "$p"
done
try "$("${{SHELL:-sh}}" -lc "command -v python3" </dev/null 2>/dev/null | tail -n 1)"
for p in "$HOME"/miniconda3/bin/python3 "$HOME"/miniforge3/bin/python3 "$HOME"/.pyenv/versions/*/bin/python3; do
  try "$p"
done
echo 'codespace-kernels: {{"result": "no_python"}}'
"""


class Bundle(NamedTuple):
    """The code that runs in a workspace.

    Attributes:
        data: A zip.
        digest: Of its content; part of its path there, so that versions do not meet.
    """

    data: bytes
    digest: str

    @property
    def path(self) -> str:
        """Where it is uploaded to, relative to the remote home."""
        return f"{_DATA}/{self.digest}/bundle.zip"


@functools.cache
def make_bundle() -> Bundle:
    """Pack the code that runs in a workspace; the same code gives the same bytes."""
    package = Path(__file__).parent
    names = [*_COMMON, *sorted(f"remote/{path.name}" for path in (package / "remote").glob("*.py"))]
    contents = {f"codespace_kernels/{name}": (package / name).read_bytes() for name in names}
    contents["__main__.py"] = _MAIN.encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(contents.items()):
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    data = buffer.getvalue()
    return Bundle(data, hashlib.sha256(data).hexdigest()[:16])


class RemoteServer:
    """A Jupyter server of ours in a workspace.

    Attributes:
        versions: What runs there: `python` (path), `python_version`, `jupyter_server`, `jupyter_client`, `software`.
        offers: Environments into which ipykernel could be installed to get a further kernel (`python`, `prefix`,
            `version`); only known when the server was started just now.
    """

    def __init__(self, versions: dict[str, str], offers: list[dict[str, str]]) -> None:
        self.versions = versions
        self.offers = offers
        self._ready: tuple[Connection, Stream] | None = None

    @property
    def python(self) -> str:
        """Path of the interpreter that runs the server."""
        return self.versions.get("python", "")

    async def open_link(self, connection: Connection, *, timeout: float = 30.0) -> Stream:
        """Open a stream for `LinkClient.attach`; on the connection that found the server the first is there already.

        Raises:
            RemoteServerError: The server is gone; `ensure_server` starts another.
            WorkspaceConnectionError: The connection was lost.
            WaitTimeoutError: No answer in time.
        """
        ready, self._ready = self._ready, None
        if ready is not None:
            if ready[0] is connection:
                return ready[1]
            ready[1].close()
        outcome, stream = await _bounded(_attach(connection), timeout)
        if stream is None:
            raise RemoteServerError(f"The Jupyter server in the workspace is gone ({outcome['result']}).")
        return stream

    def close(self) -> None:
        """Close the stream that was not asked for, if any. The server goes on."""
        if self._ready is not None:
            self._ready[1].close()
            self._ready = None


async def ensure_server(
    connection: Connection,
    progress: Progress = silent,
    *,
    install: bool = True,
    folder: str = "",
    idle_timeout: float = 600.0,
    keep: float = 86400.0,
    timeout: float = 300.0,
    greeting: bytes = b"",
) -> RemoteServer:
    """Find our Jupyter server in a workspace or start it.

    Args:
        connection: To the workspace.
        progress: Hears of the steps (`server`, `install`).
        install: Whether a private environment may be made where the workspace has no Jupyter server.
        folder: What the server serves and kernels start in; empty for the workspace's own folder.
        idle_timeout: Seconds without kernel and client after which a server started now ends; 0 for never.
        keep: Seconds that it keeps the session of a client which is away.
        timeout: Seconds for everything.
        greeting: What will be written first to the stream of the server's first `open_link`; sent beforehand, it saves
            a round trip.

    Raises:
        NoJupyterError: There is none and none could be (or may be) installed; says what was found.
        RemoteServerError: It did not start; ends with the tail of its log.
        WorkspaceConnectionError: The connection was lost.
        WaitTimeoutError: Not up in time.
    """
    return await _bounded(
        _ensure(connection, progress, install, folder, idle_timeout, keep, timeout, greeting), timeout
    )


async def _ensure(
    connection: Connection,
    progress: Progress,
    install: bool,
    folder: str,
    idle_timeout: float,
    keep: float,
    timeout: float,
    greeting: bytes,
) -> RemoteServer:
    arguments = ["ensure", "--folder", folder, "--idle-timeout", f"{idle_timeout:g}", "--keep", f"{keep:g}"]
    arguments += ["--timeout", f"{min(60.0, timeout):g}", *(["--install"] if install else [])]
    outcome, stream = await _run(connection, _ensure_script(arguments, len(greeting)), progress, greeting)
    if stream is None and outcome["result"] in ("missing", "no_bundle"):
        # A Python that was taken away, or a shell without the usual tools.
        if outcome["result"] == "no_bundle":
            await _upload(connection, progress)
        outcome, stream = await _run_script(connection, arguments, progress)
    if stream is None:
        raise _failure(outcome)
    server = RemoteServer(_texts(outcome.get("versions")), _offers(outcome.get("offers")))
    server._ready = (connection, stream)
    return server


async def install_ipykernel(
    connection: Connection, python: str, progress: Progress = silent, *, timeout: float = 600.0
) -> None:
    """Install ipykernel into one of `RemoteServer.offers` and make a kernelspec for it. Only on a person's request.

    Raises:
        RemoteServerError: It failed; says why.
        WorkspaceConnectionError: The connection was lost.
        WaitTimeoutError: Not done in time.
    """
    await _bounded(_install_ipykernel(connection, python, progress), timeout)


async def _install_ipykernel(connection: Connection, python: str, progress: Progress) -> None:
    await _upload(connection, progress)
    outcome, _ = await _run_script(connection, ["install-ipykernel", python], progress)
    if outcome["result"] != "installed":
        raise _failure(outcome)


async def _bounded(work: Awaitable[_T], timeout: float) -> _T:
    try:
        async with asyncio.timeout(timeout):
            return await work
    except TimeoutError:
        raise WaitTimeoutError.after("the Jupyter server in the workspace", timeout) from None


async def _attach(connection: Connection) -> tuple[dict[str, Any], Stream | None]:
    return await _run(connection, _ATTACH.format(data=_DATA, digest=make_bundle().digest), silent)


async def _upload(connection: Connection, progress: Progress) -> None:
    progress(ProgressEvent("server", "Copying the server extension into the workspace"))
    bundle = make_bundle()
    await connection.upload(bundle.data, bundle.path)


async def _run_script(
    connection: Connection, arguments: list[str], progress: Progress
) -> tuple[dict[str, Any], Stream | None]:
    return await _run(connection, _bundle_script(arguments), progress)


def _bundle_script(arguments: list[str]) -> str:
    return f'b="$HOME/{make_bundle().path}"\n{python_script(arguments)}'


def python_script(arguments: list[str]) -> str:
    """Give the shell script that runs the bundle, the zip that its variable `b` names, by a Python of the workspace.

    Args:
        arguments: Of `remote.bootstrap`.
    """
    return _BOOTSTRAP.format(arguments=" ".join(map(shlex.quote, arguments)))


def _ensure_script(arguments: list[str], greeting: int) -> str:
    """Give the script that becomes the link, whatever has to be done for it.

    Args:
        arguments: Of `remote.bootstrap`.
        greeting: Bytes that come on its stdin before it is told anything; thrown away where the code comes behind them.
    """
    bundle = make_bundle()
    return _ENSURE.format(
        data=_DATA,
        digest=bundle.digest,
        size=len(bundle.data),
        incoming=greeting + len(bundle.data),
        first=greeting + 1,
        bootstrap=shlex.quote(_bundle_script(arguments)),
    )


async def _run(
    connection: Connection, script: str, progress: Progress, greeting: bytes = b""
) -> tuple[dict[str, Any], Stream | None]:
    """Run a script that reports; give its result, and the stream where it became the link."""
    stream = await connection.open_command("sh -c " + shlex.quote(script.strip()))
    reader = _ReportReader(stream)
    said, wanted = greeting, False
    try:
        if greeting:
            await _offer(stream, greeting)
        async for report in reader:
            if report.get("want") == "bundle" and not wanted:
                # It throws away what was said before.
                said, wanted = b"", True
                progress(ProgressEvent("server", "Copying the server extension into the workspace"))
                await _offer(stream, make_bundle().data)
                continue
            if "result" in report:
                log.debug("workspace says %s", report["result"])
                if report["result"] == "link":
                    return report, _Resumed(stream, reader.rest, said)
                break
            progress(ProgressEvent(str(report.get("stage")), one_line(str(report.get("message")), _MAX_MESSAGE)))
        else:
            report = {"result": "missing", "message": "The script in the workspace ended without a result."}
    except BaseException:
        stream.close()
        raise
    stream.close()
    return report, None


async def _offer(stream: Stream, data: bytes) -> None:
    """Write to a script that may have ended: what it said last tells why."""
    with contextlib.suppress(WorkspaceConnectionError):
        await stream.write(data)


class _ReportReader:
    """Reads our lines out of whatever a shell writes.

    Attributes:
        rest: What came behind the last line that was given.
    """

    def __init__(self, stream: Stream) -> None:
        self.rest = b""
        self._stream = stream
        self._chatter = 0

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        """Give the reports until the stream ends."""
        while True:
            line, found, rest = self.rest.partition(b"\n")
            if not found:
                data = await self._stream.read()
                if not data:
                    return
                self.rest += data
                if len(self.rest) > _MAX_CHATTER and b"\n" not in data:
                    self._count(self.rest)
                continue
            self.rest = rest
            report = parse_report(line)
            if report is not None:
                yield report
            else:
                self._count(line)

    def _count(self, line: bytes) -> None:
        self._chatter += len(line)
        if self._chatter > _MAX_CHATTER:
            raise RemoteServerError("The workspace's shell writes so much that our script cannot be heard.")


def parse_report(line: bytes) -> dict[str, Any] | None:
    """Give what a line of our script reports; None for anything else that a shell writes."""
    if not line.startswith(_MARK):
        return None
    try:
        report = json.loads(line[len(_MARK) :])
    except (ValueError, RecursionError):
        return None
    return report if isinstance(report, dict) else None


class _Resumed:
    """A stream of which some bytes were read already, and some written.

    Args:
        stream: It.
        first: What was read.
        said: What was written; it must be what is written first.
    """

    def __init__(self, stream: Stream, first: bytes, said: bytes) -> None:
        self._stream = stream
        self._first = first
        self._said = said

    async def read(self, max_bytes: int = 262144) -> bytes:
        """Read, see `Stream.read`."""
        if self._first:
            data, self._first = self._first[:max_bytes], self._first[max_bytes:]
            return data
        return await self._stream.read(max_bytes)

    async def write(self, data: bytes) -> None:
        """Write, see `Stream.write`."""
        said, self._said = self._said, b""
        if not data.startswith(said):
            raise WorkspaceConnectionError("The workspace was told something else before.")
        if len(data) > len(said):
            await self._stream.write(data[len(said) :])

    def close(self) -> None:
        """Close, see `Stream.close`."""
        self._stream.close()


def _texts(value: Any) -> dict[str, str]:
    """Give the texts of a JSON object by name; what is none is left out."""
    return {key: text for key, text in value.items() if isinstance(text, str)} if isinstance(value, dict) else {}


def _offers(value: Any) -> list[dict[str, str]]:
    offers = map(_texts, value) if isinstance(value, list) else ()
    return [offer for offer in offers if "python" in offer]


def _failure(outcome: dict[str, Any]) -> RemoteServerError:
    kind, message, tail = outcome["result"], str(outcome.get("message", "")), str(outcome.get("log", ""))
    if kind == "no_python":
        return NoJupyterError(
            "The workspace has no Jupyter server and no Python 3.8 or newer to install one with. "
            "Add Python to its devcontainer, for example with the feature ghcr.io/devcontainers/features/python."
        )
    if kind == "no_jupyter":
        return NoJupyterError(message)
    text = message or f"The Jupyter server in the workspace could not be started ({kind})."
    return RemoteServerError(f"{text}\nThe end of its log:\n{tail}" if tail else text)
