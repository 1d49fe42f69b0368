"""Puts the handlers and the events into a Jupyter server."""

from __future__ import annotations

from typing import Any

from jupyter_server.utils import url_path_join

from codespace_kernels.lab.codespaces import ChoicesHandler, CodespacesHandler, RepositoriesHandler
from codespace_kernels.lab.front_end import NAME, advice
from codespace_kernels.lab.kernels import EndHandler, KernelspecHandler
from codespace_kernels.lab.service import LabService
from codespace_kernels.lab.state import JobHandler, JobsHandler, StateHandler

EVENT = "https://github.com/codespace-kernels/codespace-kernels/events/state/v1"
"""Schema id of the one kind of event: its `document` is what `GET state` answers."""

SCHEMA = {
    "$id": EVENT,
    "version": "1",
    "title": "Codespaces, their kernels and work on them",
    "description": "What the codespaces panel shows. It names codespaces, repositories and notebooks.",
    "personal-data": True,
    "type": "object",
    "required": ["document"],
    "properties": {"document": {"type": "object", "title": "Document", "description": "Whole, not a difference."}},
}

ROUTES = {
    "state": StateHandler,
    "codespaces": CodespacesHandler,
    "repositories": RepositoriesHandler,
    "choices": ChoicesHandler,
    "kernelspecs": KernelspecHandler,
    r"kernels/([0-9a-f-]+)": EndHandler,
    "jobs": JobsHandler,
    r"jobs/([0-9a-f]+)": JobHandler,
}


def load(serverapp: Any) -> None:
    """Serve the panel's requests in a Jupyter server."""
    logger = serverapp.event_logger
    logger.register_event_schema(SCHEMA)
    service = LabService(lambda document: logger.emit(schema_id=EVENT, data={"document": document}))
    app = serverapp.web_app
    base = url_path_join(app.settings["base_url"], NAME)
    app.add_handlers(
        ".*$", [(url_path_join(base, route), handler, {"service": service}) for route, handler in ROUTES.items()]
    )
    if missing := advice():
        serverapp.log.info(missing)
