"""Requests about what goes on: the document that the panel shows, and jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tornado.web

from codespace_kernels.errors import SettingsError
from codespace_kernels.lab import work
from codespace_kernels.lab.codespaces import create_request
from codespace_kernels.lab.handler import LabHandler

if TYPE_CHECKING:
    from codespace_kernels.lab.jobs import Job


class StateHandler(LabHandler):
    """`GET state`: what the panel shows; from then on each change is an event."""

    # A page that is told what goes on is no person at work.
    _track_activity = False

    @tornado.web.authenticated
    async def get(self) -> None:
        """Answer."""
        self.service.watch()
        self.answer(self.service.document())


class JobsHandler(LabHandler):
    """`POST jobs`: begin long work; its `kind` says which."""

    @tornado.web.authenticated
    async def post(self) -> None:
        """Answer with the job, which runs."""
        body = self.json_body()
        kind = self.text(body, "kind")
        begin = {"connect": self._connect, "create": self._create, "stop": self._stop, "login": self._login}.get(kind)
        if begin is None:
            raise SettingsError(f"There is no work {kind!r}.")
        self.answer(begin(body).to_json(), 202)

    def _connect(self, body: dict[str, Any]) -> Job:
        name, install = self.text(body, "workspace"), str(body.get("install_ipykernel") or "")
        return self.service.jobs.start("connect", name, lambda job: work.connect(job, name, install))

    def _create(self, body: dict[str, Any]) -> Job:
        request = create_request(body.get("request") or {})
        return self.service.jobs.start("create", request.repository, lambda job: work.create(job, request))

    def _stop(self, body: dict[str, Any]) -> Job:
        name = self.text(body, "workspace")
        return self.service.jobs.start("stop", name, lambda job: work.stop(job, name))

    def _login(self, body: dict[str, Any]) -> Job:
        return self.service.jobs.start("login", "GitHub", work.login)


class JobHandler(LabHandler):
    """`DELETE jobs/ID`: cancel a job that runs, or forget one that has ended."""

    @tornado.web.authenticated
    def delete(self, job_id: str) -> None:
        """Answer with what is then going on; a job that is cancelled ends a little later."""
        self.service.jobs.end(job_id)
        self.answer(self.service.document())
