"""A person at Jupyter QtConsole, played in a process of its own: the real program, keys typed into its window.

`python -m tests.e2e.qtconsole_session KERNEL PICTURE` writes a picture of the window at the end, and on stdout as JSON
what the window said at each step. Without a display Qt's `offscreen` platform draws it.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from qtconsole.qtconsoleapp import JupyterQtConsoleApp

WAIT = 60.0


class Person:
    """Types into the console and reads what it shows."""

    def __init__(self, kernel: str) -> None:
        self._app = JupyterQtConsoleApp()
        options = ["--no-confirm-exit", "--FrontendWidget.confirm_restart=False", "--no-banner"]
        self._app.initialize([f"--kernel={kernel}", *options])
        self._app.window.resize(800, 600)
        self._app.window.show()
        self._widget = self._app.widget
        self._read = 0
        self.steps: dict[str, str] = {}

    def sees(self, text: str) -> str:
        """Wait until the window shows a text behind what was looked at before; give what is new there."""
        self._wait(lambda: text in self._new(), repr(text))
        new, self._read = self._new(), len(self._all())
        return new

    def begins(self) -> None:
        """Wait for the kernel: when it says that it starts, the window is cleared and what is being typed is lost."""
        self._widget.execute("print('rea', 'dy', sep='')")
        self._wait(lambda: "ready" in self._all(), "the kernel")

    def prompt(self) -> None:
        """Wait until code can be typed."""
        self._wait(self._asks_for_code, "the prompt")
        self._read = len(self._all())

    def _asks_for_code(self) -> bool:
        busy = self._widget._executing or self._widget._reading or self._widget._request_info.get("execute")
        return not busy and self._all().endswith("]: ")

    def types(self, text: str, key: Qt.Key = Qt.Key.Key_Return) -> None:
        """Type a text and a key that ends it."""
        QTest.keyClicks(self._widget._control, text)
        QTest.keyClick(self._widget._control, key)

    def presses_with_control(self, key: Qt.Key) -> None:
        """Press a key together with Control."""
        QTest.keyClick(self._widget._control, key, Qt.KeyboardModifier.ControlModifier)

    def restarts(self) -> None:
        """Restart the kernel, and look whether its variables are gone."""
        self.presses_with_control(Qt.Key.Key_Period)
        # Not typed: the window is cleared when the kernel says that it starts, if it was heard.
        self._widget.execute("print('here:', 'remarkable' in globals())")
        self._wait(lambda: re.search("here: (True|False)", self._all()), "what is left after a restart")
        self.steps["restart"] = self._all()

    def step(self, name: str, code: str, shown: str = "\nIn [") -> None:
        """Run code, and note what it showed up to a text."""
        self.prompt()
        self.types(code)
        self.steps[name] = self.sees(shown)

    def photographs(self, path: str) -> None:
        """Keep a picture of the window."""
        self._app.window.grab().save(path)

    def leaves(self) -> None:
        """Close the window; its kernel is shut down."""
        self._app.window.close()

    def _all(self) -> str:
        return str(self._widget._control.toPlainText())

    def _new(self) -> str:
        return self._all()[self._read :]

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + WAIT
        while not condition():
            if time.monotonic() > deadline:
                sys.exit(f"waited {WAIT} s for {what}; the window says:\n{self._all()}")
            QTest.qWait(20)


def main(kernel: str, picture: str) -> None:
    person = Person(kernel)
    person.begins()
    person.step("output", "import os; remarkable = os.environ['CODESPACE_NAME']; print('in', remarkable)")
    person.step("question", "print('Hello', input('Who? '))", "\nWho? ")
    person.types("Mona")
    person.steps["answer"] = person.sees("Hello Mona")
    person.prompt()
    person.types("remark", Qt.Key.Key_Tab)
    person.steps["completion"] = person.sees("remarkable")
    person.types("[:2]")
    person.sees("Out[")
    person.step("running", "import time; print('run', 'ning', sep=''); time.sleep(600)", "\nrunning")
    person.presses_with_control(Qt.Key.Key_C)
    person.steps["interrupt"] = person.sees("KeyboardInterrupt")
    person.step("plot", "import matplotlib.pyplot as p; p.plot([1, 4, 9]);")
    person.prompt()
    person.photographs(picture)
    person.restarts()
    person.leaves()
    print(json.dumps(person.steps))


if __name__ == "__main__":
    main(*sys.argv[1:])
