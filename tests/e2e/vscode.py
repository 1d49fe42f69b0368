"""VS Code's side of a kernel: how it lists kernelspecs, and how it runs one.

Written after what microsoft/vscode-jupyter 2026.6.1 does: it has its own process and ZMQ handling, and no
jupyter_client. What that extension does not forgive, this does not forgive either: a frame that `JSON.parse` would
refuse, or a wrong signature, ends the channel for good.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple, Self

import psutil
import zmq

WAIT = 60.0
"""Seconds; the extension's own limit for a start (`jupyter.jupyterLaunchTimeout`)."""

PORTS = ("hb_port", "control_port", "shell_port", "stdin_port", "iopub_port")

# How specs are found and listed.


class Spec(NamedTuple):
    """A `kernel.json` and the name of its folder."""

    folder: str
    content: dict[str, Any]

    @property
    def program(self) -> str:
        """What is run."""
        return str(self.content["argv"][0])

    @property
    def is_python(self) -> bool:
        """Whether it gets Python's features: the spelling decides."""
        return self.content.get("language") == "python"


def search_path() -> list[Path]:
    """Folders that are searched on Linux without the Python extension, in order."""
    entries = os.environ.get("JUPYTER_PATH", "").split(os.pathsep)
    data = os.environ.get("JUPYTER_DATA_DIR") or Path(
        os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share", "jupyter"
    )
    fixed = [Path("/usr/local/share/jupyter"), Path("/usr/share/jupyter"), Path.home() / ".local" / "share" / "jupyter"]
    return [Path(place) / "kernels" for place in (*filter(None, entries), data, *fixed)]


def find_specs() -> dict[str, Spec]:
    """Find all specs, by the name that the extension gives them inside; one that it loses is not there."""
    found: list[Spec] = []
    for folder in search_path():
        for file in sorted(folder.rglob("kernel.json")):
            with contextlib.suppress(ValueError):
                found.append(Spec(file.parent.name, json.loads(file.read_text(encoding="utf-8"))))
    lost = vanishing(found)
    return {internal_name(spec): spec for spec in found if spec.folder not in lost}


def vanishing(specs: list[Spec]) -> dict[str, str]:
    """Say which specs are not listed, by folder name, and why."""
    lost: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    for spec in specs:
        reason = _reason_to_vanish(spec)
        if not reason:
            shown = (spec.content["display_name"], spec.program)
            reason = "display_name and argv[0] equal another's" if shown in seen else ""
            seen.add(shown)
        if reason:
            lost[spec.folder] = reason
    return lost


def _reason_to_vanish(spec: Spec) -> str:
    content = spec.content
    if not isinstance(content.get("argv"), list) or not content.get("display_name"):
        return "no argv or no display_name"
    interpreter = (content.get("metadata") or {}).get("interpreter")
    if interpreter and not Path(interpreter["path"]).exists():
        return "its interpreter does not exist"
    if interpreter and re.search(r"[0-9a-f]{32}$", spec.folder):
        return "its name looks like one that the extension made"
    if not spec.is_python:
        return ""
    default_name = re.fullmatch(r"python(\d*\D?\d*)", spec.folder) or content["display_name"] in {
        "Python 3",
        "Python 3 (ipykernel)",
    }
    if default_name and not content.get("env"):
        return "looks like the default kernelspec of some Python"
    if re.split(r"[/\\]", spec.program)[-1] in {"python", "python3", "python.exe", "python3.exe"}:
        return "its interpreter may not be found"
    return ""


def internal_name(spec: Spec) -> str:
    """Give the name that the extension uses; it is the folder's only where it finds nothing to rewrite."""
    argv, shown = spec.content["argv"], spec.content["display_name"]
    own = str(spec.content.get("name") or "undefined")
    dropped = {"-m", "ipykernel", "ipykernel_launcher", "-f", "{connection_file}"}
    further = [argument.lower() for argument in argv[1:] if argument not in dropped]
    if spec.is_python and len(argv) > 2 and further and not re.search(r"python \d+(\.\d*)?$", shown.lower()):
        return f"{own}.{'#'.join(further)}"
    return str(spec.content.get("name") or spec.folder)


def taken_for_python(program: str) -> bool:
    """Whether the Python extension would take a program for the interpreter of an environment that it stands in."""
    path = Path(program)
    if path.name == program:
        return False  # a bare name is never looked up
    folder = path.parent
    return folder.name in {"bin", "Scripts"} and any(
        (folder.parent / mark).exists() for mark in ("pyvenv.cfg", "conda-meta")
    )


# How one is run.


def substituted(env: dict[str, str], spec: Spec) -> dict[str, str]:
    """Merge a spec's variables over an environment, `${NAME}` replaced; a backslash before it keeps it."""

    def value_of(match: re.Match[str]) -> str:
        return match[0][1:] if match[0].startswith("\\") else env.get(match[1], "")

    own = spec.content.get("env") or {}
    return {**env, **{name: re.sub(r"\\?\$\{(\w+)\}", value_of, text) for name, text in own.items()}}


def command_line(spec: Spec, connection_file: Path) -> list[str]:
    """Fill the first argument that names the connection file, and no other."""
    argv = list(spec.content["argv"])
    place = next(i for i, argument in enumerate(argv) if "{connection_file}" in argument)
    argv[place] = argv[place].replace("{connection_file}", str(connection_file))
    return argv


def _is_free(port: int) -> bool:
    with socket.socket() as sock, contextlib.suppress(OSError):
        # Linux binds a port that nobody listens on any more, though old connections linger.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        return True
    return False


_ports = itertools.count(9000 + os.getpid() % 1000 * 20)
"""The extension counts from 9000; test runs on one machine keep out of each other's way."""


def next_ports() -> dict[str, int]:
    """Choose the next five free ports; nobody keeps them free until the launcher binds them."""
    free = (port for port in _ports if _is_free(port))
    return dict(zip(PORTS, free, strict=False))


def new_connection_file(spec: Spec) -> tuple[dict[str, Any], Path]:
    """Write a connection file as the extension does; give its content and place."""
    info = {
        **next_ports(),
        "key": str(uuid.uuid4()),
        "signature_scheme": "hmac-sha256",
        "transport": "tcp",
        "ip": "127.0.0.1",
        "kernel_name": internal_name(spec),
    }
    # The extension makes no folder with a space, but a user's name may bring one.
    folder = Path(os.environ["XDG_RUNTIME_DIR"], "jupyter runtime ü")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"kernel-v3{uuid.uuid4().hex}{uuid.uuid4().hex[:8]}.json"
    path.write_text(json.dumps(info), encoding="utf-8")
    path.chmod(0o644)
    return info, path


class ChannelDeadError(AssertionError):
    """A frame came that ends the extension's read loop: this channel would never be read again."""


def parse_json(document: bytes) -> Any:
    """Parse as `JSON.parse` does."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    return json.loads(document.decode("utf-8", errors="replace"), parse_constant=refuse)


class Message(NamedTuple):
    """A message of the kernel."""

    channel: str
    header: dict[str, Any]
    parent: dict[str, Any]
    metadata: dict[str, Any]
    content: dict[str, Any]
    buffers: list[bytes]

    @property
    def kind(self) -> str:
        """Its type."""
        return str(self.header["msg_type"])

    @property
    def parent_id(self) -> str:
        """Id of the request that it belongs to."""
        return str(self.parent.get("msg_id", ""))

    def is_status(self, state: str, parent_id: str) -> bool:
        """Whether it says that the kernel is in a state for a request."""
        return self.kind == "status" and self.parent_id == parent_id and self.content["execution_state"] == state


class Wire:
    """The extension's sockets: dealers with one identity on shell, control and stdin, a subscriber to everything."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.received: list[Message] = []
        self._key = info["key"].encode()
        self._session = str(uuid.uuid4())
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        identity = uuid.uuid4().hex.encode()
        for channel in ("shell", "control", "stdin", "iopub"):
            sock = self._context.socket(zmq.SUB if channel == "iopub" else zmq.DEALER)
            sock.set(zmq.SNDHWM, 0)
            sock.set(zmq.RCVHWM, 0)
            if channel == "iopub":
                sock.set(zmq.SUBSCRIBE, b"")
            else:
                sock.set(zmq.ROUTING_ID, identity)
            sock.connect(f"tcp://{info['ip']}:{info[f'{channel}_port']}")
            self._sockets[channel] = sock
            self._poller.register(sock, zmq.POLLIN)

    def close(self) -> None:
        """Free the sockets."""
        self._context.destroy(linger=0)

    def _signature(self, parts: list[bytes]) -> bytes:
        mac = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in parts:
            mac.update(part)
        return mac.hexdigest().encode()

    def send(
        self,
        channel: str,
        kind: str,
        content: dict[str, Any],
        *,
        parent: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        buffers: list[bytes] | None = None,
    ) -> str:
        """Send a message; give its id."""
        header = {
            "msg_id": str(uuid.uuid4()),
            "msg_type": kind,
            "session": self._session,
            "username": "vscode",
            "version": "5.2",
            "date": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
        }
        parts = [json.dumps(part).encode() for part in (header, parent or {}, metadata or {}, content)]
        frames = [b"<IDS|MSG>", self._signature(parts), *parts, *(buffers or [])]
        self._sockets[channel].send_multipart(frames)
        return header["msg_id"]

    def _decode(self, channel: str, frames: list[bytes]) -> Message:
        try:
            start = frames.index(b"<IDS|MSG>")
            signature, *parts = frames[start + 1 : start + 6]
            assert len(parts) == 4, "too few frames"
            assert signature == self._signature(parts), "wrong signature"
            return Message(channel, *map(parse_json, parts), buffers=frames[start + 6 :])
        except (ValueError, AssertionError) as error:
            raise ChannelDeadError(f"{channel}: {error}: {b' '.join(frames)[:2000]!r}") from None

    def pump(self, seconds: float) -> None:
        """Read what is there, or comes within some seconds."""
        for sock, _ in self._poller.poll(seconds * 1000):
            channel = next(name for name, known in self._sockets.items() if known is sock)
            while sock.poll(0):
                message = self._decode(channel, sock.recv_multipart())
                # The client library would open a socket that the extension never completes.
                assert message.content.get("execution_state") not in {"restarting", "dead"}
                self.received.append(message)

    def first(self, wanted: Any, what: str, seconds: float = WAIT) -> Message:
        """Wait for a message and give it; others are kept."""
        deadline = time.monotonic() + seconds
        looked_at = 0
        while True:
            for message in itertools.islice(self.received, looked_at, None):
                if wanted(message):
                    return message
            looked_at = len(self.received)
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
            self.pump(0.1)

    def reply(self, msg_id: str, seconds: float = WAIT) -> Message:
        """Wait for a request's reply."""
        return self.first(
            lambda m: m.channel in {"shell", "control"} and m.parent_id == msg_id, f"the reply to {msg_id}", seconds
        )

    def idle(self, msg_id: str, seconds: float = WAIT) -> Message:
        """Wait for the idle status of a request."""
        return self.first(
            lambda m: m.channel == "iopub" and m.is_status("idle", msg_id), f"the idle of {msg_id}", seconds
        )

    def published(self, msg_id: str) -> list[Message]:
        """What came on iopub for a request so far, statuses left out."""
        return [m for m in self.received if m.channel == "iopub" and m.parent_id == msg_id and m.kind != "status"]


class Ran(NamedTuple):
    """A finished cell."""

    msg_id: str
    reply: Message
    outputs: list[Message]

    @property
    def text(self) -> str:
        """What it printed."""
        return "".join(m.content["text"] for m in self.outputs if m.kind == "stream")


def start_up_code(notebook: Path) -> list[str]:
    """What the extension runs silently before the first cell: that much of it, in that order."""
    return [
        "try:\n  import ipywidgets as _VSCODE_ipywidgets\n  print(_VSCODE_ipywidgets.__version__)\n"
        "  del _VSCODE_ipywidgets\nexcept:\n  pass",
        "import builtins as _VSCODE_builtins\ndel _VSCODE_builtins\n"
        f"__vsc_ipynb_file__ = {str(notebook)!r}\n%config Completer.use_jedi = False",
        "started_by_the_user_setting = True",
    ]


class VSCodeKernel:
    """A notebook's kernel: its launcher and the extension's sockets.

    Args:
        spec: What was picked.
        notebook: The file; its folder is the launcher's working folder.
        env: Variables over those of this process, as the extension host has them.
    """

    def __init__(self, spec: Spec, notebook: Path, **env: str) -> None:
        self.spec = spec
        self.notebook = notebook
        self.info, self.connection_file = new_connection_file(spec)
        self.process = self._spawn(env)
        self._wire: Wire | None = None
        self._debugged = 0

    @property
    def wire(self) -> Wire:
        """The sockets; connected at first use, which must not be before the ports answer."""
        if self._wire is None:
            self._wire = Wire(self.info)
        return self._wire

    def _spawn(self, env: dict[str, str]) -> subprocess.Popen[bytes]:
        added = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "PYTHON_FROZEN_MODULES": "on"}
        if self.spec.is_python:
            added["PYDEVD_IPYTHON_COMPATIBLE_DEBUGGING"] = "1"
        # Node's pipes are socket pairs.
        self._stdin, theirs = socket.socketpair()
        self._stderr = self.connection_file.with_suffix(".stderr")
        with theirs, self._stderr.open("wb") as stderr:
            return subprocess.Popen(
                command_line(self.spec, self.connection_file),
                env=substituted({**os.environ, **env, **added}, self.spec),
                cwd=self.notebook.parent,
                stdin=theirs,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )

    # The start, step by step.

    def start(self) -> Self:
        """Start as the extension does; from then on cells can be run."""
        self.wait_for_ports()
        self.shake_hands()
        self.run_start_up_code()
        return self

    def wait_for_ports(self) -> None:
        """Try shell and iopub every 200 ms; a try connects and closes."""
        deadline = time.monotonic() + WAIT
        while not all(self.answers(name) for name in ("shell_port", "iopub_port")):
            assert self.process.poll() is None, f"the launcher ended: {self.failure()}"
            assert time.monotonic() < deadline, "timeout waiting for the ports to get used"
            time.sleep(0.2)

    def answers(self, port_name: str) -> bool:
        """Whether somebody takes a connection on a port."""
        with socket.socket() as sock:
            return sock.connect_ex((self.info["ip"], self.info[port_name])) == 0

    def shake_hands(self) -> list[str]:
        """Ask for `kernel_info` on shell and control every 500 ms until both a reply and iopub came; give the ids."""
        asked: list[str] = []
        deadline = time.monotonic() + WAIT
        while not (self._any("shell", "control") and self._any("iopub")):
            assert time.monotonic() < deadline, f"no kernel_info within {WAIT} s"
            asked += [self.wire.send(channel, "kernel_info_request", {}) for channel in ("shell", "control")]
            until = time.monotonic() + 0.5
            while time.monotonic() < until and not (self._any("shell", "control") and self._any("iopub")):
                self.wire.pump(0.05)
        return asked

    def _any(self, *channels: str) -> bool:
        return any(message.channel in channels for message in self.wire.received)

    def run_start_up_code(self) -> None:
        """Run what every start runs, silently, each after the other's reply and idle; then ask and wait for idle."""
        for code in start_up_code(self.notebook):
            assert self.execute(code, silent=True).reply.content["status"] == "ok"
        asked = self.wire.send("shell", "kernel_info_request", {})
        assert self.wire.reply(asked).content["language_info"]["name"] == "python"
        self.wire.idle(asked)

    # What the user does.

    def send_cell(self, code: str, *, silent: bool = False) -> str:
        """Send a cell, as the notebook does; give the request's id."""
        content = {
            "code": code,
            "silent": silent,
            "store_history": not silent,
            "user_expressions": {},
            "allow_stdin": not silent,
            "stop_on_error": False,
        }
        metadata = {} if silent else {"cellId": f"vscode-notebook-cell:{self.notebook}#W0sZmlsZQ%3D%3D"}
        return self.wire.send("shell", "execute_request", content, metadata=metadata)

    def finish_cell(self, msg_id: str) -> Ran:
        """Wait for a cell's end: its reply and its idle."""
        reply = self.wire.reply(msg_id)
        self.wire.idle(msg_id)
        return Ran(msg_id, reply, self.wire.published(msg_id))

    def execute(self, code: str, *, silent: bool = False) -> Ran:
        """Run a cell to its end."""
        return self.finish_cell(self.send_cell(code, silent=silent))

    def wait_for_output(self, msg_id: str, text: str) -> None:
        """Wait until a cell has printed something."""
        self.wire.first(
            lambda m: m.parent_id == msg_id and m.kind == "stream" and text in m.content["text"], f"{text!r}"
        )

    def interrupt(self) -> None:
        """Press the stop button: the request's reply and its idle must come within ten seconds."""
        asked = self.wire.send("control", "interrupt_request", {})
        assert self.wire.reply(asked, 10).kind == "interrupt_reply"
        self.wire.idle(asked, 10)

    def debug(self, command: str, **arguments: object) -> dict[str, Any]:
        """Make a request of the debugger's protocol; give its answer."""
        self._debugged += 1
        content = {"type": "request", "seq": self._debugged, "command": command, "arguments": arguments}
        asked = self.wire.send("control", "debug_request", content)
        reply = self.wire.reply(asked)
        assert reply.channel == "control"
        self.wire.idle(asked)
        return reply.content

    def debug_event(self, event: str) -> dict[str, Any]:
        """Wait for something that the debugger tells."""
        told = self.wire.first(lambda m: m.kind == "debug_event" and m.content["event"] == event, f"the event {event}")
        assert told.channel == "iopub"
        return told.content

    # The end.

    def stop(self) -> None:
        """Stop for good or for a restart: descendants, launcher, file; nobody is asked and nothing waited for."""
        for process in self.descendants():
            with contextlib.suppress(psutil.Error):
                process.terminate()
        self.process.terminate()
        self.connection_file.unlink(missing_ok=True)
        self._leave()

    def descendants(self) -> list[psutil.Process]:
        """Find what the launcher started, by parent process ids."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.Error:
            return []

    def restart(self) -> VSCodeKernel:
        """Restart: stop, and 20 ms later a new launcher with new ports and a new file."""
        self.stop()
        # What the extension does; nothing is waited for.
        time.sleep(0.02)
        return VSCodeKernel(self.spec, self.notebook)

    def close_window(self) -> None:
        """Reload or close the window: SIGTERM, then the end of stdin; the connection file is left."""
        self.process.terminate()
        self._leave()

    def crash(self) -> None:
        """Let VS Code itself be killed: the end of stdin is all that tells."""
        self._leave()

    def _leave(self) -> None:
        self._stdin.close()
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def failure(self) -> str:
        """Give what a user is shown when the launcher ends too early: the last line that says `Error`, else all."""
        self.process.wait(WAIT)
        text = self.stderr()
        last = text.strip().splitlines()[-1:]
        return last[0] if last and "Error" in last[0] else text

    def stderr(self) -> str:
        """What the launcher wrote on stderr so far."""
        return self._stderr.read_text(encoding="utf-8")

    def end(self) -> None:
        """Make sure that nothing of it is left, however the test went."""
        self._leave()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.communicate(timeout=10)
            self._stderr.unlink(missing_ok=True)
            self.connection_file.unlink(missing_ok=True)


REWRITTEN = re.compile(
    r"ModuleNotFoundError|No module named|ImportError|DLL load failed|win32api|zmq.*cython|cython.*zmq", re.IGNORECASE
)
"""Words in stderr that make the extension show package advice in place of the launcher's own text."""


def python_probe(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program as the Python extension's environment tool does, to learn whether it is an interpreter."""
    code = "import json, sys; print(json.dumps({'executable': sys.executable, 'prefix': sys.prefix}))"
    return subprocess.run(
        [program, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
        env={**os.environ, **env},
    )


HOST = """
import os, subprocess, sys, time
kernel = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
print(kernel.pid, flush=True)
time.sleep(600)
"""


def extension_host(spec: Spec, connection_file: Path) -> tuple[subprocess.Popen[str], int]:
    """Start a process that starts a launcher and can be killed; give it and the launcher's process id."""
    argv = [sys.executable, "-c", HOST, *command_line(spec, connection_file)]
    host = subprocess.Popen(argv, env=substituted(dict(os.environ), spec), stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    return host, int(host.stdout.readline())
