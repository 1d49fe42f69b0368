from __future__ import annotations

import asyncio

import pytest

from codespace_kernels.errors import WaitTimeoutError, WorkspaceConnectionError


async def test_run_gives_output_and_exit_status(connect):
    connection = await connect()
    result = await connection.run("cat; echo oops >&2; exit 3", stdin=b"hello")
    assert result == (3, b"hello", b"oops\n")


async def test_command_that_is_killed_has_no_exit_status(connect):
    connection = await connect()
    assert (await connection.run("kill -9 $$")).exit_status == -1


async def test_run_that_takes_too_long_is_ended(connect):
    connection = await connect()
    with pytest.raises(WaitTimeoutError, match=r"0\.2 s"):
        await connection.run("sleep 30", timeout=0.2)
    assert (await connection.run("echo still here")).stdout == b"still here\n"


async def read_exactly(stream, size):
    data = bytearray()
    while len(data) < size:
        chunk = await stream.read()
        assert chunk
        data += chunk
    return bytes(data)


async def test_stream_echoes(connect):
    connection = await connect()
    stream = await connection.open_command("cat")
    for message in (b"one", b"two", b"x" * 100_000):
        await stream.write(message)
        assert await read_exactly(stream, len(message)) == message
    stream.close()
