"""A client of a kernel's five ports without limits of its own, the same for every path that ends in such ports."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import uuid
from collections import Counter
from typing import Any

import zmq

DELIMITER = b"<IDS|MSG>"


class Result(dict):
    """What came of a request: `ms`, `counts` of output messages by type, `bytes` of them, `reply`, `idle`, `text`."""


class Collector:
    """Takes the messages of one request until its reply and its idle are there."""

    def __init__(self, msg_id: str) -> None:
        self.reply = self.idle = False
        self.counts: Counter[str] = Counter()
        self.bytes = 0
        self.text: list[str] = []
        self._msg_id = msg_id.encode()
        self._began = time.perf_counter()

    @property
    def is_over(self) -> bool:
        return self.reply and self.idle

    def take_reply(self, parent: bytes) -> None:
        self.reply |= self._msg_id in parent

    def take_output(self, header: bytes, parent: bytes, content: bytes, size: int) -> None:
        if self._msg_id not in parent:
            return
        kind = json.loads(header)["msg_type"]
        self.counts[kind] += 1
        self.bytes += size
        if kind == "status":
            self.idle |= b'"idle"' in content
        elif kind == "stream" and size < 10_000:
            self.text.append(json.loads(content)["text"])

    def result(self) -> Result:
        ms = (time.perf_counter() - self._began) * 1000
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

    def _connect(self, kind: int, info: dict[str, Any], port: str) -> zmq.Socket:
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

    def send(self, msg_type: str, content: dict[str, Any], buffers: tuple[bytes, ...] = ()) -> str:
        msg_id = uuid.uuid4().hex
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
        pause = 0.05
        while time.monotonic() < ends:
            collector = Collector(self.send("kernel_info_request", {}))
            self._collect(collector, min(ends, time.monotonic() + pause))
            if collector.is_over:
                return
            pause = min(2 * pause, 1.0)
        raise TimeoutError(f"the kernel was not ready within {timeout} s")

    def execute(self, code: str, timeout: float = 120.0) -> Result:
        content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}}
        content |= {"allow_stdin": False, "stop_on_error": True}
        collector = Collector(self.send("execute_request", content))
        self._collect(collector, time.monotonic() + timeout)
        return collector.result()

    def _collect(self, collector: Collector, ends: float) -> None:
        grace = None
        while not collector.is_over and (left := ends - time.monotonic()) > 0:
            if collector.reply and grace is None:
                # An idle that does not come within this is lost.
                grace = time.monotonic() + 5
            if grace is not None:
                left = min(left, grace - time.monotonic())
                if left <= 0:
                    return
            ready = dict(self._poller.poll(left * 1000))
            if self._shell in ready:
                frames = self._shell.recv_multipart()
                collector.take_reply(frames[frames.index(DELIMITER) + 3])
            if self._iopub in ready:
                for _ in range(100):
                    frames = self._iopub.recv_multipart(copy=False)
                    self._take_output(collector, frames)
                    if not self._iopub.get(zmq.EVENTS) & zmq.POLLIN:
                        break
                    grace = None

    @staticmethod
    def _take_output(collector: Collector, frames: list[zmq.Frame]) -> None:
        at = next(i for i, frame in enumerate(frames) if len(frame) == len(DELIMITER) and frame.bytes == DELIMITER)
        header, parent, content = frames[at + 2].bytes, frames[at + 3].bytes, frames[at + 5].bytes
        collector.take_output(header, parent, content, sum(map(len, frames)))
