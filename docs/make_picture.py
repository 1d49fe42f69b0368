"""Run the demo in a terminal of its own and draw what it prints: `python docs/make_picture.py` writes `demo.svg`."""

import os
import pty
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 118
COMMAND = ("codespace-kernels", "demo")


def terminal_output() -> str:
    """Give what the demo writes to a terminal, escape sequences included; its progress is left out."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "codespace_kernels.cli", *COMMAND[1:]],
        stdout=follower,
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": str(COLUMNS),
            "TERM": "xterm-256color",
        },
        cwd=Path(__file__).parent.parent,
    )
    os.close(follower)
    shown = b""
    try:
        while data := os.read(leader, 65536):
            shown += data
    except OSError:
        pass  # Linux's way to say that the demo has closed the terminal
    os.close(leader)
    if process.wait() != 0:
        sys.exit(f"The demo failed with exit code {process.returncode}.")
    return shown.decode().replace("\r\n", "\n")


def main() -> None:
    """Draw the picture."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere)
        console.print(Text(f"$ {' '.join(COMMAND)}"))
        console.print(Text.from_ansi(terminal_output()))
        console.save_svg(str(Path(__file__).parent / "demo.svg"), title="codespace-kernels demo")


if __name__ == "__main__":
    main()
