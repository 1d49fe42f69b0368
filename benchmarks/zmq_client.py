"""A client of a kernel's five ports without limits of its own, the same for every way that ends in such ports."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import time
import uuid
from collections import Counter
from typing import Any

import zmq

DELIMITER = b"<IDS|MSG>"


LOST_AFTER = 5.0
"""Seconds of silence after which what has not come is lost."""


def execute_content(code: str) -> dict[str, Any]:
    """Give an `execute_request`'s content."""
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}}
    return {**content, "allow_stdin": False, "stop_on_error": True}


class Result(dict[str, Any]):
    """What came of a request.

    `ms` until its last message, `counts` of output messages by type, their `bytes`, `text`, and whether `reply` and
    `idle` came.
    """


class Collector:
    """Takes the messages of one request until its reply and its idle are there."""

    def __init__(self, msg_id: str) -> None:
        self.reply = self.idle = False
        self.counts: Counter[str] = Counter()
        self.bytes = 0
        self.text: list[str] = []
        self._msg_id = msg_id.encode()
        self._began = self._last = time.perf_counter()

    @property
    def is_over(self) -> bool:
        return self.reply and self.idle

    @property
    def idle_is_lost(self) -> bool:
        """Whether it was silent for so long after the reply that no idle will come."""
        return self.reply and not self.idle and time.perf_counter() - self._last > LOST_AFTER

    def take_reply(self, parent: bytes) -> None:
        if self._msg_id in parent:
            self.reply = True
            self._last = time.perf_counter()

    def take_output(self, header: bytes, parent: bytes, content: bytes, size: int) -> None:
        if self._msg_id not in parent:
            return
        self._last = time.perf_counter()
        kind = json.loads(header)["msg_type"]
        self.counts[kind] += 1
        self.bytes += size
        if kind == "status":
            self.idle |= b'"idle"' in content
        elif kind == "stream" and size < 10_000:
            self.text.append(json.loads(content)["text"])

    def result(self) -> Result:
        # Waiting for what was lost does not count.
        ms = (self._last - self._began) * 1000
        text = "".join(self.text)
        return Result(ms=ms, counts=dict(self.counts), bytes=self.bytes, reply=self.reply, idle=self.idle, text=text)


class ZmqClient:
    """Blocking.

    Args:
        info: A connection file's content.
    """

    def __init__(self, info: dict[str, Any]) -> None:
        self._key = info["key"] if isinstance(info["key"], bytes) else str(info["key"]).encode()
        self._context = zmq.Context()
        self._session = uuid.uuid4().hex
        self._shell = self._connect(zmq.DEALER, info, "shell_port")
        self._iopub = self._connect(zmq.SUB, info, "iopub_port")
        self._poller = zmq.Poller()
        self._poller.register(self._shell, zmq.POLLIN)
        self._poller.register(self._iopub, zmq.POLLIN)

    def _connect(self, kind: int, info: dict[str, Any], port: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.hwm = 0
        if kind == zmq.SUB:
            socket.subscribe(b"")
        else:
            socket.identity = self._session.encode()
        socket.connect(f"tcp://{info['ip']}:{info[port]}")
        return socket

    def close(self) -> None:
        self._context.destroy(linger=0)

    def send(
        self, msg_type: str, content: dict[str, Any], buffers: tuple[bytes, ...] = (), msg_id: str | None = None
    ) -> str:
        msg_id = msg_id or uuid.uuid4().hex
        header = {"msg_id": msg_id, "msg_type": msg_type, "session": self._session, "username": "", "version": "5.3"}
        header["date"] = "2026-01-01T00:00:00.000000Z"
        parts = [json.dumps(part).encode() for part in (header, {}, {}, content)]
        mac = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in parts:
            mac.update(part)
        self._shell.send_multipart([DELIMITER, mac.hexdigest().encode(), *parts, *buffers], copy=False)
        return msg_id

    def wait_for_ready(self, timeout: float = 60.0) -> None:
        """Wait until requests are answered and output is heard, as jupyter_client does, asking a little more often."""
        ends = time.monotonic() + timeout
        asked = f"ready-{uuid.uuid4().hex}"
        # The answer to any of the questions will do.
        collector = Collector(asked)
        pause = 0.05
        for number in itertools.count():
            # No two are the same: a kernel refuses what it has seen.
            self.send("kernel_info_request", {}, msg_id=f"{asked}-{number}")
            self._collect(collector, min(ends, time.monotonic() + pause), until_lost=False)
            if collector.is_over:
                return
            if time.monotonic() >= ends:
                break
            pause = min(2 * pause, 1.0)
        raise TimeoutError(f"the kernel was not ready within {timeout} s")

    def execute(self, code: str, timeout: float = 120.0) -> Result:
        collector = Collector(self.send("execute_request", execute_content(code)))
        self._collect(collector, time.monotonic() + timeout)
        return collector.result()

    def _collect(self, collector: Collector, ends: float, *, until_lost: bool = True) -> None:
        while not collector.is_over and (left := ends - time.monotonic()) > 0:
            if until_lost and collector.idle_is_lost:
                return
            # A tick at a time: silence can only be seen.
            ready = dict(self._poller.poll(int(min(left, 0.5) * 1000)))
            if self._shell in ready:
                frames = self._shell.recv_multipart()
                collector.take_reply(frames[frames.index(DELIMITER) + 3])
            if self._iopub in ready:
                for _ in range(100):
                    self._take_output(collector, self._iopub.recv_multipart(copy=False))
                    if not int(self._iopub.get(zmq.EVENTS)) & zmq.POLLIN:
                        break

    @staticmethod
    def _take_output(collector: Collector, frames: list[zmq.Frame]) -> None:
        at = next(i for i, frame in enumerate(frames) if len(frame) == len(DELIMITER) and frame.bytes == DELIMITER)
        header, parent, content = frames[at + 2].bytes, frames[at + 3].bytes, frames[at + 5].bytes
        collector.take_output(header, parent, content, sum(map(len, frames)))
