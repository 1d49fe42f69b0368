"""What a kernel wrote to stderr before it died is told with the cause of its death."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from codespace_kernels.link.client import LinkClient
from codespace_kernels.remote.last_words import KEPT, LINES, SIZE, LastWords, describe_end, readable
from codespace_kernels.remote_kernel import KernelState

from .recorder import Recorder


@pytest.fixture
def words(tmp_path: Path) -> Iterator[LastWords]:
    words = LastWords(str(tmp_path))
    yield words
    words.close()


def write(words: LastWords, text: str) -> None:
    subprocess.run([sys.executable, "-c", f"import os; os.write(2, ({text}).encode())"], stderr=words, check=True)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"one\r\n\n  two \n", "one\n  two"),
        (b"\x1b[31mred\x1b[0m\x07 \x1b]0;title\x07\xff\x00\xc2\x9b", "red \ufffd"),
        ("\u202egnorw".encode(), "gnorw"),
        (b"1%\r2%\r3%", "1%\n2%\n3%"),
        (b"".join(b"%d\n" % i for i in range(50)), "\n".join(map(str, range(50 - LINES, 50)))),
        (b"x" * 100_000 + b"end", "x" * (SIZE - 3) + "end"),
    ],
)
def test_the_last_lines_without_control_characters(data: bytes, text: str) -> None:
    assert readable(data) == text


def test_of_pythons_fault_handler_the_thread_that_crashed() -> None:
    stack = "".join(f'  File "f.py", line {i} in f{i}\n' for i in range(40))
    dump = f"Fatal Python error: Aborted\n\nThread 0x1 (m):\n{stack}\nCurrent thread 0x2 (m):\n{stack}"
    assert readable(dump.encode()).splitlines()[:2] == ["Current thread 0x2 (m):", '  File "f.py", line 0 in f0']
    assert len(readable(dump.encode()).splitlines()) == LINES


def test_the_file_has_no_name_and_does_not_grow(words: LastWords, tmp_path: Path) -> None:
    assert list(tmp_path.iterdir()) == []
    for part in ("a", "b"):
        write(words, f"'{part}\\n' * {KEPT}")
        words.shorten()
        assert os.fstat(words.fileno()).st_size == 0
    write(words, "'the end\\n'")
    assert words.tell() == "\n".join(["b"] * (LINES - 1) + ["the end"])
    assert words.tell().endswith("the end")


def test_what_was_said_before_a_restart_is_forgotten(words: LastWords) -> None:
    write(words, "'before'")
    words.forget()
    assert words.tell() == ""
    write(words, "'after'")
    assert words.tell() == "after"


def test_what_nobody_read_of_a_pipe_in_stderrs_place(words: LastWords) -> None:
    """As ipykernel has one, read by a thread that dies with the process."""
    code = (
        "import os, sys; r, w = os.pipe(); os.dup2(w, 2); print(flush=True); input(); os.write(2, b'lost'); os._exit(1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words
    )
    assert process.stdout is not None
    process.stdout.readline()
    write(words, "'while it started'")
    words.came_up(process.pid)
    write(words, "'while it ran, '")
    process.communicate(b"\n")
    assert words.tell() == words.tell() == "while it ran, lost"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (None, "The kernel's process has ended."),
        (0, "The kernel's process ended by itself, with exit code 0."),
        (-11, "The kernel's process was ended by SIGSEGV."),
        (-64, "The kernel's process was ended by SIGRTMAX."),
        (-99, "The kernel's process was ended by signal 99."),
    ],
)
def test_an_end_in_words(code: int | None, text: str) -> None:
    assert describe_end(code, "") == text
    assert describe_end(code, "a\nb") == f"{text} Its last words on stderr:\na\nb"


FAULT = "import faulthandler, ctypes; faulthandler.enable()\ndef crash(): ctypes.string_at(0)\ncrash()"
SAY = "import os, time; os.write(2, b'first\\n'); time.sleep(0.2); os.write(2, b'more\\n'); os.write(2, b'last\\n');"


@pytest.mark.parametrize(
    ("code", "texts"),
    [
        pytest.param(FAULT, ["ended by SIGSEGV", "Current thread 0x", " in crash\n"], id="segmentation fault"),
        pytest.param(f"{SAY} os._exit(3)", ["exit code 3", "first\n", "last"], id="exit"),
        pytest.param(f"{SAY} os.kill(os.getpid(), 9)", ["killed (SIGKILL)", "first\n", "last"], id="kill"),
    ],
)
async def test_a_kernel_that_dies(recorder: Recorder, code: str, texts: list[str]) -> None:
    await recorder.run("pass")
    recorder.request(code)
    reason = await recorder.state(KernelState.DEAD)
    assert [text for text in texts if text not in reason] == []
    assert "TCP without encryption" not in reason  # ipykernel's own words, while it started
    await recorder.kernel.restart()
    recorder.request("import os; os._exit(0)")
    await recorder.until(lambda: recorder.states[-1][0] is KernelState.DEAD and len(recorder.states) > 2)
    assert recorder.states[-1][1] == "The kernel's process ended by itself, with exit code 0."


async def test_what_is_shown_in_the_cell_is_shown_as_before(recorder: Recorder) -> None:
    """ipykernel has its own pipe in stderr's place; what it reads of it is output of the cell."""
    code = "import subprocess, sys, time\nsubprocess.run('echo of a command >&2', shell=True)\ntime.sleep(0.5)"
    request = await recorder.run(code)
    assert "of a command" in str(recorder.of_request(request))


async def test_a_kernel_that_cannot_start(client: LinkClient, home: Path) -> None:
    folder = home / "jupyter/kernels/broken"
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "no_such_module", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "B", "language": "python"}))
    recorder = Recorder(await client.start_kernel("broken"))
    reason = await recorder.state(KernelState.DEAD)
    assert "exit code 1. Its last words on stderr:\n" in reason
    assert reason.endswith("No module named no_such_module")
    await recorder.kernel.shutdown()


async def test_nothing_is_left_of_kernels_that_are_gone(client: LinkClient) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc on this machine")
    server = (await client.server_info())["pid"]

    async def wait_for(count: int) -> None:
        async with asyncio.timeout(30):
            while unnamed_files(server) != count:
                await asyncio.sleep(0.05)

    await wait_for(0)
    kernel = await client.start_kernel("python3")
    await wait_for(1)
    await kernel.shutdown()
    await wait_for(0)


def unnamed_files(pid: int) -> int:
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found += str(descriptor.readlink()).endswith("(deleted)")
    return found
