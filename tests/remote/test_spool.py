"""What kernels send while the client is away: bounded in memory and on disk, and nothing missing without a word."""

from __future__ import annotations

import json
import os
import re
import resource
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from codespace_kernels.link.session import MessageReceived, Session
from codespace_kernels.messages import Message, Signer
from codespace_kernels.remote import spool
from codespace_kernels.remote.channels import CONTROL, IOPUB, SHELL
from codespace_kernels.remote.clients import Client
from codespace_kernels.remote.reactor import Reactor
from codespace_kernels.remote.spool import Spool, SpoolQueue

from .recorder import execute
from .test_channels import KEY, SlowKernel

ID = "0123456789abcdef"


def open_files(folder: Path) -> int:
    """Bytes of this process's files without a name in a folder."""
    total = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            if str(link.readlink()).startswith(str(folder)):
                total += link.stat().st_size
        except OSError:
            continue
    return total


def written(kept: Spool) -> None:
    """Wait until the disk has what it is to have."""
    end = time.monotonic() + 60
    while kept.unwritten:
        assert time.monotonic() < end, f"{kept.unwritten} bytes were not written"
        time.sleep(0.001)


class QueueMachine(RuleBasedStateMachine):
    """Two queues of one spool beside two deques."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(spool, "SEGMENT", 3000)
        self.patch.setattr(spool, "BLOCK", 700)
        self.spool = Spool("/tmp", 1000, 20_000)
        self.queues = [SpoolQueue(self.spool) for _ in range(2)]
        self.models: list[deque[spool.Piece]] = [deque(), deque()]
        self.serial = 0
        self.refused = False

    @rule(which=st.integers(0, 1), sizes=st.lists(st.integers(0, 600), min_size=1, max_size=20), more=st.booleans())
    def append(self, which: int, sizes: list[int], more: bool) -> None:
        for size in sizes:
            self.serial += 1
            piece = (self.serial % 5, more, b"%d" % self.serial * (1 + size // 10))
            self.queues[which].append(piece)
            self.models[which].append(piece)

    @precondition(lambda self: any(self.models))
    @rule(which=st.integers(0, 1), count=st.integers(1, 30))
    def pop(self, which: int, count: int) -> None:
        for _ in range(min(count, len(self.models[which]))):
            assert self.queues[which].popleft() == self.models[which].popleft()

    @rule(which=st.integers(0, 1))
    def clear(self, which: int) -> None:
        self.queues[which].clear()
        self.models[which].clear()

    @rule()
    def wait_for_the_disk(self) -> None:
        if resource.getrlimit(resource.RLIMIT_FSIZE)[0] == hard_limit and not self.refused:
            written(self.spool)

    @rule(refused=st.booleans())
    def disk_refuses(self, refused: bool) -> None:
        # What was refused stays in memory until it is read.
        self.refused = self.refused or refused
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500 if refused else hard_limit, hard_limit))

    @invariant()
    def they_agree(self) -> None:
        for queue, model in zip(self.queues, self.models, strict=True):
            assert bool(queue) == bool(model)

    @invariant()
    def what_is_counted_is_there(self) -> None:
        kept = sum(len(body) for model in self.models for _, _, body in model)
        assert kept <= self.spool.size
        if not any(self.models):
            assert self.spool.size == 0

    def teardown(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard_limit, hard_limit))
        for queue, model in zip(self.queues, self.models, strict=True):
            while model:
                assert queue.popleft() == model.popleft()
        assert (self.spool.memory, self.spool.disk, self.spool.unwritten) == (0, 0, 0)
        self.spool.close()
        self.patch.undo()


hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_beyond_the_memory_it_is_files_without_names(tmp_path: Path) -> None:
    kept = Spool(str(tmp_path), 100_000)
    queue = SpoolQueue(kept)
    for index in range(500):
        queue.append((1, False, b"%04d" % index * 1000))
    assert kept.memory <= 100_000 + spool.BLOCK
    assert kept.disk > 1_700_000
    written(kept)
    assert open_files(tmp_path) == kept.disk
    assert list(tmp_path.iterdir()) == []
    most = 0
    for index in range(500):
        assert queue.popleft() == (1, False, b"%04d" % index * 1000)
        most = max(most, kept.memory)
    assert most <= 100_000 + 2 * spool.BLOCK + 100 * spool.OVERHEAD
    assert open_files(tmp_path) == kept.size == 0
    kept.close()


def test_what_a_crash_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "spool-abc").write_bytes(b"secret")
    (tmp_path / "server-1.json").write_text("{}")
    Spool(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["server-1.json"]


def test_no_more_than_half_of_the_free_space_is_taken(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path)
    kept = Spool(str(tmp_path), 0, 1 << 60)
    kept.take_disk(1)
    assert kept.has_room(free.f_bavail * free.f_frsize // 3)
    assert not kept.has_room(free.f_bavail * free.f_frsize * 2 // 3)


class Publisher(SlowKernel):
    """A kernel that is up and publishes what it is told to."""

    def __init__(self) -> None:
        super().__init__((CONTROL,))
        for name, channel in (("shell", SHELL), ("control", CONTROL), ("iopub", IOPUB)):
            self.bind(name, channel)
        self.sockets[IOPUB].sndhwm = 0
        self.identities: tuple[bytes, ...] = ()

    def answer(self, channel: int, bound: zmq.Socket[bytes], frames: list[bytes]) -> None:
        super().answer(channel, bound, frames)
        self.identities = self.signer.unpack(frames).identities

    def publish(self, kind: str, request: Message, **content: object) -> None:
        header = json.dumps({"msg_id": os.urandom(8).hex(), "msg_type": kind}).encode()
        message = Message((kind.encode(),), header, request.header, b"{}", json.dumps(content).encode())
        self.sockets[IOPUB].send_multipart(self.signer.pack(message))

    def reply(self, request: Message, **content: object) -> None:
        message = Message(
            self.identities, b'{"msg_type":"execute_reply"}', request.header, b"{}", json.dumps(content).encode()
        )
        self.sockets[SHELL].send_multipart(self.signer.pack(message))


class Away:
    """A client's session in the codespace, a kernel, and the other end that comes back when it is told to."""

    def __init__(self, folder: Path, memory: int, disk: int) -> None:
        self.kernel = Publisher()
        self.reactor = Reactor()
        self.spool = Spool(str(folder), memory, disk)
        self.client = Client(self.reactor, ID, lambda record: None, self.spool)
        self.far = Session(ID)
        self.messages: list[tuple[int, Message]] = []
        opened = {"number": 1, "kernel_id": "k", "info": self.kernel.info}
        self.client.answer({"open": opened, "answer": {"id": 1, "ok": {}}}, [])

    def turn(self) -> None:
        self.reactor.turn(time.monotonic() + 0.005)
        self.client.tick(self.reactor.now)
        self.kernel.work()

    def until(self, condition: object, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < end, "did not happen"
            self.turn()

    def execute(self) -> Message:
        request = execute("print('many')")
        self.client.session.attach()
        self.far.attach()
        self.far.send(1, SHELL, Signer(KEY).pack(request))
        self.exchange()
        self.until(lambda: self.kernel.executed)
        self.client.session.detach()
        return request

    def exchange(self) -> None:
        """Carry what both ends give until there is no more."""
        moved = True
        while moved:
            moved = False
            for source, target in ((self.far, self.client.session), (self.client.session, self.far)):
                now = time.monotonic()
                while data := source.data_to_send(now + 1):
                    moved = True
                    events = target.receive_data(data, now + 1)
                    if target is self.far:
                        self._take(events)
                    else:
                        for event in events:
                            if isinstance(event, MessageReceived):
                                self.client._take(event)
            self.client.tick(time.monotonic())

    def _take(self, events: list[object]) -> None:
        for event in events:
            if isinstance(event, MessageReceived) and event.kernel == 1:
                self.messages.append((event.channel, Signer(KEY).unpack(event.parts)))

    def come_back(self) -> None:
        self.client.session.attach()
        self.far.attach()
        self.exchange()

    def close(self) -> None:
        self.client.close()
        self.kernel.close()


@pytest.fixture
def away(tmp_path: Path) -> Iterator[Away]:
    rig = Away(tmp_path, 50_000, 200_000)
    yield rig
    rig.close()
    assert (rig.spool.memory, rig.spool.disk, rig.spool.unwritten) == (0, 0, 0)
    rig.spool.close()
    assert open_files(tmp_path) == 0


def texts(rig: Away, name: str = "stdout") -> list[str]:
    contents = [message.content_dict() for channel, message in rig.messages if channel == IOPUB]
    return [content["text"] for content in contents if content.get("name") == name]


def settle(rig: Away) -> None:
    """Turn until nothing more comes from the kernel."""
    size, quiet = -1, 0
    while quiet < 10:
        rig.turn()
        now = rig.client.session.queued_bytes + sum(gap.messages for gap in outputs(rig)._gaps.values())
        quiet = quiet + 1 if now == size else 0
        size = now


def outputs(rig: Away):
    return rig.client._kernels[1].outputs


def test_everything_that_fits_arrives_in_order(away: Away) -> None:
    request = away.execute()
    for index in range(500):
        away.kernel.publish("stream", request, name="stdout", text=str(index))
    away.kernel.publish("status", request, execution_state="idle")
    settle(away)
    assert away.spool.disk > 0
    away.come_back()
    assert texts(away) == [str(index) for index in range(500)]
    assert texts(away, "stderr") == []


def test_the_newest_outputs_are_missing_and_their_cell_says_how_many(away: Away) -> None:
    request = away.execute()
    away.kernel.publish("status", request, execution_state="busy")
    for index in range(3000):
        away.kernel.publish("stream", request, name="stdout", text=f"{index:0100}")
    away.kernel.publish("error", request, ename="E", evalue="", traceback=[])
    away.kernel.publish("status", request, execution_state="idle")
    away.kernel.reply(request, status="error")
    settle(away)
    assert away.spool.size <= 270_000
    away.come_back()
    kept = texts(away)
    assert kept == [f"{index:0100}" for index in range(len(kept))]
    assert 200 < len(kept) < 3000
    (note,) = texts(away, "stderr")
    assert re.match(
        rf"\[codespace-kernels\] Here {3000 - len(kept)} messages of output \([\d.]+ MiB\) are missing", note
    )
    kinds = [message.header_dict()["msg_type"] for channel, message in away.messages if channel == IOPUB]
    assert kinds == ["status", *["stream"] * (len(kept) + 1), "error", "status"]
    assert [message.parent_dict() for _, message in away.messages] == [request.header_dict()] * len(away.messages)
    assert [message.content_dict() for channel, message in away.messages if channel == SHELL] == [{"status": "error"}]


def test_a_gap_is_told_also_where_nothing_more_is_published(away: Away) -> None:
    request = away.execute()
    for index in range(3000):
        away.kernel.publish("stream", request, name="stdout", text=f"{index:0100}")
    settle(away)
    away.come_back()
    assert "are missing" in texts(away, "stderr")[0]
    away.kernel.publish("stream", request, name="stdout", text="after")
    settle(away)
    away.exchange()
    assert texts(away)[-1] == "after"
    assert len(texts(away, "stderr")) == 1


def test_what_the_link_cannot_carry_is_said_in_the_cell_and_who_waits_gets_an_error(
    away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = away.execute()
    monkeypatch.setattr("codespace_kernels.link.frames.MAX_MESSAGE", 5000)
    away.kernel.publish("display_data", request, data={"text/plain": "x" * 6000})
    away.kernel.reply(request, status="ok", user_expressions={"x": "y" * 6000})
    settle(away)
    away.come_back()
    assert [text[:50] for text in texts(away, "stderr")] == ["[codespace-kernels] A message of the kernel was le"] * 2
    (reply,) = [message for channel, message in away.messages if channel == SHELL]
    assert reply.content_dict()["ename"] == "MessageTooLarge"
    assert reply.parent == request.header
