"""What is answered for a kernel that is not there, and what only the kernel can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codespace_kernels.bridge.local_messages import PROTOCOL_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

_LANGUAGES: dict[str, dict[str, Any]] = {
    "python": {
        "mimetype": "text/x-python",
        "codemirror_mode": {"name": "ipython", "version": 3},
        "pygments_lexer": "ipython3",
        "nbconvert_exporter": "python",
        "file_extension": ".py",
    },
    "r": {"mimetype": "text/x-r-source", "codemirror_mode": "r", "pygments_lexer": "r", "file_extension": ".r"},
    "julia": {"mimetype": "application/julia", "file_extension": ".jl"},
    "bash": {"mimetype": "text/x-sh", "codemirror_mode": "shell", "file_extension": ".sh"},
}
"""What the usual kernels of these languages say of themselves, by language in lower case."""


def guessed_kernel_info(language: str, where: str, versions: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Give a `kernel_info_reply` for a kernel that never answered yet.

    Args:
        language: As the kernelspec has it; empty counts as Python.
        where: Where the kernel will run, for the banner.
        versions: Of `python` and `ipython`, as far as they are known.
    """
    language = language or "python"
    versions = versions or {}
    version = versions.get("python", "")
    return {
        "status": "ok",
        "protocol_version": PROTOCOL_VERSION,
        "implementation": "ipython" if "ipython" in versions else language,
        "implementation_version": versions.get("ipython", ""),
        "language_info": {"name": language, "version": version, **_LANGUAGES.get(language.lower(), {})},
        "banner": f"{language} {version} in {where}" if version else f"{language} in {where}",
        "help_links": [],
    }


def answer(msg_type: str, content: Mapping[str, Any], kernel_info: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give a reply's content; None where only the kernel can answer.

    Args:
        msg_type: Of the request.
        content: Of the request.
        kernel_info: The reply to a `kernel_info_request`.
    """
    position = content.get("cursor_pos", 0)
    answers: dict[str, Mapping[str, Any]] = {
        "kernel_info_request": kernel_info,
        "complete_request": {"matches": [], "cursor_start": position, "cursor_end": position, "metadata": {}},
        "inspect_request": {"found": False, "data": {}, "metadata": {}},
        # The front end then decides by itself whether the code is run.
        "is_complete_request": {"status": "unknown"},
        "history_request": {"history": []},
        "comm_info_request": {"comms": {}},
    }
    found = answers.get(msg_type)
    return None if found is None else {"status": "ok", **found}


def harmless(execute: Mapping[str, Any]) -> dict[str, Any]:
    """Give the content under which a background execution that was answered already goes to the kernel.

    Nobody is there any more to give input, and a failure is not the fault of the cells behind it.
    """
    return {**execute, "allow_stdin": False, "stop_on_error": False}


EXECUTED: dict[str, Any] = {"status": "ok", "execution_count": 0, "payload": [], "user_expressions": {}}
"""The reply to an execution of which nobody will see the result."""


def is_background(execute: Mapping[str, Any]) -> bool:
    """Tell whether a front end executes this of its own accord, from the content of an `execute_request`.

    Such a request is silent, or it is none that stands in a queue of cells: VS Code's start-up code and its later
    questions are not silent on the wire, but have neither a place in the history nor `stop_on_error`
    (`executeSilently` in vscode-jupyter's `src/kernels/helpers.ts`). A program that runs code for its output through
    jupyter_client keeps one of the two.
    """
    silent = bool(execute.get("silent", False))
    return silent or not (execute.get("store_history", True) or execute.get("stop_on_error", True))
