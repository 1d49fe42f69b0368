from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paramiko.buffered_pipe import BufferedPipe, PipeTimeout

from codespace_kernels.ssh.chunk_pipe import ChunkPipe

steps = st.lists(st.binary(max_size=12) | st.integers(1, 30) | st.just("empty") | st.just("close"), max_size=40)


@given(steps)
def test_it_does_what_paramikos_does(steps):
    pipes = ChunkPipe(), BufferedPipe()
    for step in steps:
        outcomes = []
        for pipe in pipes:
            if isinstance(step, bytes):
                outcomes.append(pipe.feed(step))
            elif isinstance(step, int):
                try:
                    outcomes.append(pipe.read(step, timeout=0.0))
                except PipeTimeout:
                    outcomes.append("timeout")
            else:
                outcomes.append(getattr(pipe, step)())
        assert outcomes[0] == outcomes[1]
        assert [len(pipes[0]), pipes[0].read_ready()] == [len(pipes[1]), pipes[1].read_ready()]


def test_a_chunk_is_handed_on_as_it_came():
    pipe = ChunkPipe()
    chunk = b"x" * 1000
    pipe.feed(chunk)
    assert pipe.read(1000) is chunk


@pytest.mark.parametrize("feed", [lambda pipe: pipe.feed(b"late"), lambda pipe: pipe.close()])
def test_a_reader_that_waits_is_woken(feed):
    pipe = ChunkPipe()
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read(10, timeout=10)))
    reader.start()
    feed(pipe)
    reader.join(10)
    assert got in ([b"late"], [b""])
