"""Programs in a terminal of their own, as a person has them."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import termios
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WAIT = 90.0
"""Seconds for one text to appear."""

AGAIN = 5.0
"""Seconds after which a key that nothing came of is pressed again."""


class Terminal:
    """A terminal with one program in it; leaving the context ends both."""

    def __init__(
        self, command: Sequence[str], *, rows: int = 33, columns: int = 99, cwd: Path | None = None, **env: str
    ) -> None:
        self.leader, self.follower = pty.openpty()
        termios.tcsetwinsize(self.follower, (rows, columns))
        self.settings = termios.tcgetattr(self.follower)
        self.process = subprocess.Popen(
            [*command],
            cwd=cwd,
            stdin=self.follower,
            stdout=self.follower,
            stderr=self.follower,
            env={**os.environ, "TERM": "xterm-256color", **env},
            start_new_session=True,
        )
        self._text = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.wait(WAIT)
        for descriptor in (self.leader, self.follower):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def wait_for(self, text: str, *, key: str = "") -> None:
        """Wait until this stands there, after what was waited for before.

        Args:
            text: What.
            key: Pressed now, and again as long as nothing comes of it: between two prompts, a key may be lost.
        """
        watch = threading.Timer(WAIT, self._give_up)
        watch.start()
        try:
            self.type(key)
            while text.encode() not in self._text:
                while key and not select.select([self.leader], [], [], AGAIN)[0]:
                    self.type(key)
                data = os.read(self.leader, 65536)
                assert data != b"\0", f"waited {WAIT} s for {text!r}"
                self._text += data
        finally:
            watch.cancel()
            print(self._text.decode(errors="replace"))
        self._text = self._text.partition(text.encode())[2]

    def _give_up(self) -> None:
        self.process.kill()
        os.write(self.follower, b"\0")

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.leader, text.encode())

    def read_to_end(self) -> str:
        """Read until the last program has closed the terminal; give what stood there after what was waited for."""
        follower, self.follower = self.follower, -1
        os.close(follower)
        # Linux's way to say that it is closed.
        with contextlib.suppress(OSError):
            while data := os.read(self.leader, 65536):
                self._text += data
        return self._text.decode()

    def wait(self) -> int:
        """Wait for the program's end, reading what it still writes; give its exit code."""
        reader = threading.Thread(target=self._drain, daemon=True)
        reader.start()
        return self.process.wait(WAIT)

    def _drain(self) -> None:
        with contextlib.suppress(OSError):
            while os.read(self.leader, 65536):
                pass
