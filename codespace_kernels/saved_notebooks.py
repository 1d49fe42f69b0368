"""A Jupyter server extension: the line that a waiting cell shows is not saved with its notebook.

JupyterLab and Notebook save what a cell shows, every two minutes unasked; there is no display that they show and do not
save. So the line is marked, and the server that they save by leaves it out. The wheel enables this where the package is
installed beside a Jupyter server.
"""

from __future__ import annotations

from typing import Any

MARK = "codespace_kernels_waiting"
"""Key in an output's `metadata` that makes it a line to be left out."""


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(serverapp: Any) -> None:
    serverapp.contents_manager.register_pre_save_hook(leave_waiting_lines_out)


def leave_waiting_lines_out(*, model: dict[str, Any], **kwargs: Any) -> None:
    """Take marked outputs out of a notebook that is about to be saved.

    Args:
        model: Of the contents manager, as its `pre_save_hook` gets it; changed in place.
        kwargs: What else such a hook gets.
    """
    if model.get("type") != "notebook":
        return
    for cell in model["content"].get("cells", []):
        if any(map(_is_waiting_line, cell.get("outputs", []))):
            cell["outputs"] = [output for output in cell["outputs"] if not _is_waiting_line(output)]


def _is_waiting_line(output: dict[str, Any]) -> bool:
    return MARK in output.get("metadata", {})
