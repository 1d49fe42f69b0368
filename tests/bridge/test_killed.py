"""What a client has after its kernel's ports died with their process: what was reported as sent, or one batch more."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from codespace_kernels.bridge.sockets import LocalSockets
from codespace_kernels.messages import Channel
from codespace_kernels.zmtp.frames import FrameDecoder
from tests.zmtp.hello import GREETING, ready

SENT = struct.Struct("=Q")

BATCH = 64
"""Messages that one call hands to the operating system, at most."""


async def publish(report: str) -> None:
    """Publish numbers for as long as this process lives; the last one that was sent stands in a file."""
    file = os.open(report, os.O_WRONLY)
    subscribed = asyncio.Event()
    sockets = LocalSockets("127.0.0.1", None)
    sockets.start(lambda _channel, _frames: True, lambda _topic: subscribed.set())
    print(sockets.ports.iopub, flush=True)
    await subscribed.wait()
    number = 0
    while True:
        if sockets.waiting < 1 << 20:
            number += 1
            frames = [b"t", SENT.pack(number), bytes(number * 997 % 50_000)]
            sockets.send(Channel.IOPUB, frames, lambda number=number: os.pwrite(file, SENT.pack(number), 0))
        else:
            await asyncio.sleep(0)


def numbers_in(data: bytes) -> list[int]:
    """Give the numbers of all messages that are there whole."""
    numbers, frames = [], []
    for flags, body in FrameDecoder(1 << 20).feed(data):
        frames.append(body)
        if not flags & 1:
            if frames[0] == b"t":
                numbers.append(SENT.unpack(frames[1])[0])
            frames = []
    return numbers


@pytest.mark.parametrize("read_before", [200_000, 3_000_000, 10_000_000])
def test_a_client_has_what_was_reported_as_sent(tmp_path: Path, read_before: int) -> None:
    report = tmp_path / "sent"
    report.write_bytes(SENT.pack(0))
    program = [sys.executable, "-m", __name__, str(report)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(GREETING + ready(b"SUB") + b"\x00\x01\x01")
            data = bytearray()
            while len(data) < read_before:
                data += client.recv(65536)
            process.kill()
            process.wait()
            while piece := client.recv(65536):
                data += piece
    (sent,) = SENT.unpack(report.read_bytes())
    got = numbers_in(bytes(data[64:]))
    assert got == list(range(1, len(got) + 1))
    # The process may have died in the very call that handed over a batch.
    assert sent <= len(got) <= sent + BATCH
    assert sent > 3


if __name__ == "__main__":
    asyncio.run(publish(sys.argv[1]))
