"""Long work that a page began, and that goes on while the page is reloaded or closed."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

from codespace_kernels.errors import CodespaceKernelsError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from codespace_kernels.progress import ProgressEvent

log = logging.getLogger(__name__)

RUNNING, DONE, FAILED, CANCELLED = "running", "done", "failed", "cancelled"

MOST_STEPS = 40
MOST_ENDED = 20
"""Ended jobs that are remembered until a page has seen to them."""


def error_json(error: BaseException) -> dict[str, str]:
    """Give an error for a page: `message`, `kind` (the error's class) and `url`; what is not ours is logged."""
    if isinstance(error, CodespaceKernelsError):
        return {"message": str(error), "kind": type(error).__name__, "url": error.url}
    log.error("work for a page failed inside", exc_info=error)
    return {"message": f"It failed inside ({error!r}). The Jupyter server's log says more.", "kind": "", "url": ""}


@dataclasses.dataclass(eq=False)
class Job:
    """One piece of work.

    Attributes:
        kind: `connect`, `create`, `stop` or `login`.
        subject: What it is about, for a person: a codespace's or a repository's name.
        changed: Called after each change.
        job_id: For addresses.
        state: One of the four above.
        steps: What it has been doing, the last one now: `ProgressEvent`s as JSON, one a stage.
        detail: What pages need while it runs, JSON; changed by `tell`.
        result: What it came to, JSON.
        error: As `error_json`; None where it did not fail.
        kept: What only the server needs of the result.
        started_at, ended_at: Unix time.
    """

    kind: str
    subject: str
    changed: Callable[[], None]
    job_id: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)
    state: str = RUNNING
    steps: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    detail: dict[str, Any] = dataclasses.field(default_factory=dict)
    result: dict[str, Any] = dataclasses.field(default_factory=dict)
    error: dict[str, str] | None = None
    kept: Any = None
    started_at: float = dataclasses.field(default_factory=time.time)
    ended_at: float | None = None

    def progress(self, event: ProgressEvent) -> None:
        """Hear of a step; one of the same stage takes the place of the one before."""
        if self.steps and self.steps[-1]["stage"] == event.stage:
            self.steps.pop()
        self.steps = [*self.steps, event.to_json()][-MOST_STEPS:]
        self.changed()

    def tell(self, **detail: Any) -> None:
        """Tell pages something while the work goes on."""
        self.detail.update(detail)
        self.changed()

    def ended(self, state: str) -> None:
        """Note that the work is over."""
        self.state, self.ended_at = state, time.time()
        self.changed()

    def to_json(self) -> dict[str, Any]:
        """Give what pages see."""
        return {
            "id": self.job_id,
            "kind": self.kind,
            "subject": self.subject,
            "state": self.state,
            "steps": self.steps,
            "detail": self.detail,
            "result": self.result,
            "error": self.error,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
        }


class Jobs:
    """All jobs of one server.

    Args:
        changed: Called after each change of one of them.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, kind: str, subject: str, work: Callable[[Job], Awaitable[dict[str, Any]]]) -> Job:
        """Begin a piece of work; one of this kind about this subject that runs already is given instead."""
        for job in self._jobs.values():
            if (job.kind, job.subject, job.state) == (kind, subject, RUNNING):
                return job
        self._forget_old()
        job = Job(kind, subject, self._changed)
        self._jobs[job.job_id] = job
        task = self._tasks[job.job_id] = asyncio.create_task(self._run(job, work))
        task.add_done_callback(lambda _: self._over(job))
        self._changed()
        return job

    async def _run(self, job: Job, work: Callable[[Job], Awaitable[dict[str, Any]]]) -> None:
        try:
            job.result = await work(job)
        except asyncio.CancelledError:
            job.ended(CANCELLED)
        except Exception as error:  # whatever it is, the page must hear of it
            job.error = error_json(error)
            job.ended(FAILED)
        else:
            job.ended(DONE)

    def _over(self, job: Job) -> None:
        del self._tasks[job.job_id]
        if job.state == RUNNING:
            # Cancelled before it began.
            job.ended(CANCELLED)

    def _forget_old(self) -> None:
        ended = [job for job in self._jobs.values() if job.state != RUNNING]
        for job in ended[: max(0, len(ended) - MOST_ENDED + 1)]:
            del self._jobs[job.job_id]

    def get(self, job_id: str) -> Job:
        """Find a job.

        Raises:
            SettingsError: There is none of that id.
        """
        try:
            return self._jobs[job_id]
        except KeyError:
            raise SettingsError(
                "That work is not known any more: the Jupyter server was restarted. Begin it anew."
            ) from None

    def end(self, job_id: str) -> None:
        """Begin to cancel a job that runs; forget one that has ended."""
        self.get(job_id)
        if (task := self._tasks.get(job_id)) is not None:
            task.cancel()
        else:
            del self._jobs[job_id]
            self._changed()

    async def close(self) -> None:
        """Cancel everything."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def to_json(self) -> list[dict[str, Any]]:
        """Give what pages see, the oldest first."""
        return [job.to_json() for job in self._jobs.values()]
