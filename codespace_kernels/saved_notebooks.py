"""A Jupyter server extension: the lines that a waiting cell shows are not saved with its notebook.

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
            cell["outputs"] = _without_waiting_lines(cell["outputs"])


def _without_waiting_lines(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave marked outputs out; text that was one stream before a line came between is one again."""
    kept: list[dict[str, Any]] = []
    parted = False
    for output in outputs:
        if _is_waiting_line(output):
            parted = True
            continue
        if parted and kept and _stream(output) and _stream(kept[-1]) == _stream(output):
            kept[-1] = {**kept[-1], "text": "".join([*kept[-1]["text"], *output["text"]])}
        else:
            kept.append(output)
        parted = False
    return kept


def _stream(output: dict[str, Any]) -> str:
    """Give the name of the stream that a text belongs to; empty for another kind of output."""
    return str(output.get("name", "")) if output.get("output_type") == "stream" else ""


def _is_waiting_line(output: dict[str, Any]) -> bool:
    return MARK in output.get("metadata", {})
