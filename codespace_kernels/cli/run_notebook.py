"""A notebook as `codespace-kernels run` has it: read and checked first, executed cell by cell, written whatever comes.

nbclient does the executing, without the signal handlers that it installs: they end the kernel in the middle of a cell,
and with it all that was printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.util
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import ensure_async
from traitlets import Instance

from codespace_kernels import kernelspecs
from codespace_kernels.cli import interrupts
from codespace_kernels.errors import SettingsError
from codespace_kernels.progress import Progress, ProgressEvent
from codespace_kernels.provisioner import CodespaceProvisioner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nbclient import NotebookClient
    from nbformat import NotebookNode

    from codespace_kernels.remote_kernel import RemoteKernelSpec
    from codespace_kernels.target import Target

START_TIMEOUT = 120
"""Seconds for a kernel of a codespace that runs and is connected to."""

MOST_SHOWN = 60
"""Characters of a cell's first line that are shown."""

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclasses.dataclass(frozen=True)
class FailedCell:
    """The cell that ended an execution.

    Attributes:
        number: Among the code cells, from 1.
        index: Among all cells, from 0.
        ename, evalue: Class and text of its error.
        text: Its code and its traceback, for people.
    """

    number: int
    index: int
    ename: str
    evalue: str
    text: str = dataclasses.field(repr=False)


@dataclasses.dataclass
class Execution:
    """How far an execution has come.

    Attributes:
        began: Whether the kernel was there.
        cells: How many code cells there are to run.
        executed: How many were run to their end, a failed one included.
        failed: The one that ended it; None where none did.
        kernel_id: What the broker calls the kernel; empty before there is one.
    """

    began: bool = False
    cells: int = 0
    executed: int = 0
    failed: FailedCell | None = None
    kernel_id: str = ""


def check_extra() -> None:
    """Check that what executes notebooks is installed.

    Raises:
        SettingsError: It is not.
    """
    missing = [name for name in ("nbclient", "nbformat") if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"Running a notebook needs {' and '.join(missing)}. Install them: pip install 'codespace-kernels[demo]'."
        )


class NotebookFile:
    """A notebook, and where its executed form goes.

    Args:
        path: Of the notebook.
        output: Of its executed form.

    Raises:
        SettingsError: It cannot be read or is no notebook, or the other cannot be written.
    """

    def __init__(self, path: Path, output: Path) -> None:
        self.path = path.absolute()
        self.output = output.absolute()
        self.notebook = _read(path)
        _check_writable(self.output)

    def write(self) -> None:
        """Write the executed form, all of it or nothing.

        Raises:
            SettingsError: It cannot be written.
        """
        import nbformat

        # A cell that was interrupted may hold what no version of the format allows; it is worth more than nothing.
        text = str(nbformat.writes(self.notebook, nbformat.NO_CONVERT))  # type: ignore[no-untyped-call]
        try:
            _replace(self.output, text if text.endswith("\n") else f"{text}\n")
        except OSError as error:
            raise SettingsError(
                f"The executed notebook cannot be written to {self.output}: {error.strerror}."
            ) from None

    def kernel(self, wanted: str, offered: Mapping[str, RemoteKernelSpec]) -> str:
        """Choose a kernel of the codespace.

        Args:
            wanted: Name of one; empty for the one that the notebook asks for, else one of its language.
            offered: What the codespace has, by name.

        Raises:
            SettingsError: None can be chosen.
        """
        spec = self.notebook.metadata.get("kernelspec", {})
        name = wanted or self._asked_for(str(spec.get("name", "")))
        if name in offered:
            return name
        if wanted:
            raise SettingsError(f"The codespace has no kernel {wanted}. It has: {', '.join(sorted(offered))}.")
        language = str(self.notebook.metadata.get("language_info", {}).get("name") or spec.get("language") or "python")
        fitting = [name for name, other in offered.items() if other.language.lower() == language.lower()]
        if len(fitting) == 1 or "python3" in fitting:
            return "python3" if "python3" in fitting else fitting[0]
        raise SettingsError(
            f"Which kernel runs {self.path.name}? Choose with --kernel one of {', '.join(sorted(offered))}."
        )

    def _asked_for(self, name: str) -> str:
        """Give the kernel's name in a codespace where the notebook was last used with one of our kernelspecs."""
        own = kernelspecs.installed().get(name)
        return own.target.kernel if own is not None else name

    async def execute(
        self, target: Target, remote: RemoteKernelSpec, done: Execution, told: Progress, **options: Any
    ) -> None:
        """Execute the notebook, in place; what ends it early is a failed cell in `done`, or raised.

        Args:
            target: The kernel.
            remote: Its kernelspec.
            done: Filled while it goes on.
            told: Hears of each cell.
            options: For `nbclient.NotebookClient`: `timeout`, `allow_errors`.

        Raises:
            CodespaceKernelsError: The kernel did not start.
            asyncio.CancelledError: It was interrupted.
        """
        from nbclient import NotebookClient

        client = NotebookClient(self.notebook, km=_manager(target, remote), startup_timeout=START_TIMEOUT, **options)
        with interrupts.cancelled():
            try:
                await self._start(client, done)
                await _execute_cells(client, done, told)
                client.set_widgets_metadata()
            finally:
                await _end(client)

    async def _start(self, client: NotebookClient, done: Execution) -> None:
        env = {**os.environ, "JPY_SESSION_NAME": str(self.path)}
        await client.async_start_new_kernel(cwd=str(self.path.parent), env=env)
        provisioner = client.km.provisioner if client.km is not None else None
        assert isinstance(provisioner, CodespaceProvisioner)
        done.kernel_id = provisioner.broker_kernel_id
        channels = await client.async_start_new_kernel_client()
        info = await client.async_wait_for_reply(await ensure_async(channels.kernel_info()))
        if info is not None:
            self.notebook.metadata["language_info"] = info["content"]["language_info"]


class _OneKernelSpec(KernelSpecManager):
    """Knows one kernelspec, which stands nowhere on disk."""

    spec = Instance(KernelSpec)

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Give it, whatever the name."""
        return self.spec


def _manager(target: Target, remote: RemoteKernelSpec) -> AsyncKernelManager:
    content = kernelspecs.spec_content(target, remote, f"{remote.display_name} · {target.place} (codespace)")
    return AsyncKernelManager(
        kernel_name=target.kernel, kernel_spec_manager=_OneKernelSpec(spec=KernelSpec(**content, resource_dir=""))
    )


async def _execute_cells(client: NotebookClient, done: Execution, told: Progress) -> None:
    from nbclient.exceptions import CellControlSignal, CellExecutionError

    cells = [(index, cell) for index, cell in enumerate(client.nb.cells) if _is_run(cell)]
    done.began, done.cells = True, len(cells)
    for number, (index, cell) in enumerate(cells, 1):
        told(ProgressEvent("cell", f"Cell {number} of {len(cells)}: {_first_line(cell.source)}"))
        try:
            await client.async_execute_cell(cell, index, execution_count=client.code_cells_executed + 1)
        except CellExecutionError as error:
            done.executed = number
            done.failed = FailedCell(number, index, error.ename, _plain(error.evalue), _plain(str(error)).rstrip())
            return
        except (CellControlSignal, RuntimeError) as error:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                # nbclient takes any cancellation for a kernel that died.
                raise asyncio.CancelledError from None
            # Out of time, or the kernel did die.
            text = _plain(str(error)).strip()
            done.failed = FailedCell(number, index, type(error).__name__, text.splitlines()[0], text)
            return
        done.executed = number


async def _end(client: NotebookClient) -> None:
    with contextlib.suppress(RuntimeError):
        if client.kc is not None:
            client.kc.stop_channels()
        if client.km is not None and client.km.has_kernel:
            await ensure_async(client.km.shutdown_kernel(now=True))


def _is_run(cell: NotebookNode) -> bool:
    """Tell whether nbclient runs a cell."""
    skipped = "skip-execution" in cell.metadata.get("tags", [])
    return cell.cell_type == "code" and bool(cell.source.strip()) and not skipped


def _first_line(source: str) -> str:
    line = source.strip().splitlines()[0]
    return line if len(line) <= MOST_SHOWN else f"{line[: MOST_SHOWN - 1]}…"


def _plain(text: str) -> str:
    return _COLOURS.sub("", text)


def _read(path: Path) -> NotebookNode:
    import nbformat

    try:
        notebook: NotebookNode = nbformat.reads(path.read_text(encoding="utf-8"), 4)  # type: ignore[no-untyped-call]
        nbformat.validate(notebook)
    except OSError as error:
        raise SettingsError(f"The notebook {path} cannot be read: {error.strerror}.") from None
    except (ValueError, nbformat.ValidationError, KeyError, AttributeError, TypeError) as error:
        # The library has an error of its own for some of what is wrong, and stumbles over the rest.
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SettingsError(f"{path} is no notebook: {why[:200].rstrip('.')}.") from None
    return notebook


def _check_writable(path: Path) -> None:
    """Check now what would be learnt too late: after a machine was paid for."""
    if path.is_dir():
        raise SettingsError(f"{path} is a folder. Name a file with --output.")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise SettingsError(
            f"Nothing can be written to {path.parent}: {error.strerror}. Choose with --output."
        ) from None


def _replace(path: Path, text: str) -> None:
    """Write a file atomically, with the mode that it has, or that new files get."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        fresh = Path(folder) / path.name
        fresh.write_text(text, encoding="utf-8")
        if path.exists():
            fresh.chmod(path.stat().st_mode)
        fresh.replace(path)
