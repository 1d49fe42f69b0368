"""The Jupyter server's side of the panel in JupyterLab and Notebook 7 (its front end is in `frontend/`).

A Jupyter server extension: what the command line does with codespaces, below `/codespace-kernels/` for the pages of the
server's own user. No token ever goes there. Long work is a job that survives a reload of the page; its progress, and
what the broker is doing, come as events of Jupyter's own event system.
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(serverapp: Any) -> None:
    from codespace_kernels.lab.extension import load  # A server without pages starts no slower.

    load(serverapp)
