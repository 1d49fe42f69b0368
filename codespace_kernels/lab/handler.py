"""What all requests below `/codespace-kernels/` share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import tornado.web
from jupyter_server.base.handlers import APIHandler

from codespace_kernels.broker.protocol import json_object
from codespace_kernels.errors import CodespaceKernelsError, SettingsError
from codespace_kernels.lab.jobs import error_json

if TYPE_CHECKING:
    from codespace_kernels.lab.service import LabService

REFUSED = 409
"""Status of an answer that carries one of our errors: `message`, `kind` (its class) and `url`."""


class LabHandler(APIHandler):
    """JSON in, JSON out, errors as they were raised. Origin and XSRF token are checked by jupyter_server."""

    def initialize(self, service: LabService) -> None:
        """Take the service."""
        self.service = service

    def json_body(self) -> dict[str, Any]:
        """Give the request's JSON object.

        Raises:
            SettingsError: It is none.
        """
        return json_object(self.request.body, "The request's body is not a JSON object.")

    def text(self, body: dict[str, Any], name: str) -> str:
        """Give a text of the body that must be there.

        Raises:
            SettingsError: It is not.
        """
        value = body.get(name)
        if not isinstance(value, str) or not value:
            raise SettingsError(f"The request lacks {name!r}.")
        return value

    def answer(self, value: dict[str, Any], status: int = 200) -> None:
        """Finish with JSON."""
        self.set_status(status)
        self.finish(json.dumps(value))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with the error that was raised."""
        _, error, _ = kwargs.get("exc_info") or (None, None, None)
        if error is None or isinstance(error, tornado.web.HTTPError):
            super().write_error(status_code, **kwargs)
            return
        self.answer(error_json(error), REFUSED if isinstance(error, CodespaceKernelsError) else 500)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Keep a traceback only of what is our own fault."""
        if not isinstance(value, CodespaceKernelsError):
            super().log_exception(typ, value, tb)
