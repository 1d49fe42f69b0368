"""A way to a kernel, and a front end in a process of its own that goes it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.programs import BenchmarkError, Program


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to a kernel.

    Attributes:
        name: In the tables.
        kind: Of the worker.
        options: Of the worker.
        log: What the worker says on stderr is added to it.
        python: That runs the worker.
    """

    name: str
    kind: str
    options: dict[str, Any]
    log: Path
    python: str = sys.executable

    @contextlib.contextmanager
    def started(self) -> Iterator[FrontEnd]:
        """Give a front end with a kernel.

        Raises:
            BenchmarkError: The kernel does not start.
        """
        front = FrontEnd(self)
        try:
            front.start()
            yield front
        finally:
            front.end()


class FrontEnd:
    """A worker with one kernel.

    Args:
        way: How it gets it.

    Attributes:
        ready: Milliseconds from the start until requests are answered.
        first: Milliseconds from the start to the first result.
    """

    def __init__(self, way: Way) -> None:
        self.way = way
        self.ready = self.first = 0.0
        command = [way.python, "-m", "benchmarks.worker", way.kind, json.dumps(way.options)]
        self._worker = Program(*command, env=dict(os.environ), log=way.log)

    def start(self) -> None:
        """Start the kernel, and execute something."""
        came = self.do("start")
        self.ready, self.first = came["ready"], came["first"]

    def begin(self, do: str, **order: Any) -> None:
        """Tell it to do something; `result` gives what came of it."""
        self._worker.write(json.dumps({"do": do, **order}))

    def result(self, timeout: float = 180.0) -> Any:
        """Give what came of what it was told, within so many seconds.

        Raises:
            BenchmarkError: It failed.
        """
        answer = self._worker.read(timeout)
        if "error" in answer:
            raise BenchmarkError(f"{self.way.name}: {answer['error']}")
        return answer["ok"]

    def do(self, what: str, **order: Any) -> Any:
        """Have it do something, and give what came of it."""
        self.begin(what, **order)
        return self.result()

    def end(self) -> None:
        """End the kernel and the worker."""
        try:
            self.begin("shutdown")
            self.result(30.0)
        except (BenchmarkError, OSError, ValueError):
            pass  # it is gone, or has been ended before
        self._worker.end()
