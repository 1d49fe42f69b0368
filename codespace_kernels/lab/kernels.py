"""Requests about kernels: the one that a person picks, and ones that they end."""

from __future__ import annotations

import asyncio
from typing import Any

import tornado.web

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.cli.connect import write_specs
from codespace_kernels.errors import SettingsError
from codespace_kernels.github.keyrings import in_daemon_thread
from codespace_kernels.lab.handler import LabHandler
from codespace_kernels.lab.work import access

END_TIMEOUT = 60.0
"""Seconds for a kernel to end, politely first."""


class KernelspecHandler(LabHandler):
    """`POST kernelspecs`: write the spec of a kernel that a connect job has found."""

    @tornado.web.authenticated
    async def post(self) -> None:
        """Answer with the spec's name and what pickers show."""
        body = self.json_body()
        job = self.service.jobs.get(self.text(body, "job"))
        if job.kept is None:
            raise SettingsError(f"{job.subject} is not connected yet.")
        kernel = self.text(body, "kernel")
        (written,) = await asyncio.to_thread(write_specs, access(), job.kept, [kernel])
        self.answer({"name": written.name, "display_name": written.display_name}, 201)


class EndHandler(LabHandler):
    """`DELETE kernels/ID`: end a kernel that the broker holds or keeps."""

    @tornado.web.authenticated
    async def delete(self, kernel_id: str) -> None:
        """Answer when it has ended."""

        def end() -> Any:
            return BrokerClient().call("POST", f"kernels/{kernel_id}/shutdown", {}, timeout=END_TIMEOUT)

        self.answer(await in_daemon_thread(end))
