"""Work that a page began: it goes on without the page, and tells how it ended."""

from __future__ import annotations

import asyncio

import pytest

from codespace_kernels.errors import PermissionsRequiredError, SettingsError
from codespace_kernels.lab.jobs import MOST_ENDED, Jobs
from codespace_kernels.progress import ProgressEvent


@pytest.fixture
def told():
    return []


@pytest.fixture
async def jobs(told):
    jobs = Jobs(lambda: told.append(1))
    yield jobs
    await jobs.close()


async def until_ended(job) -> None:
    async with asyncio.timeout(10):
        while job.state == "running":
            await asyncio.sleep(0)


async def test_steps_and_the_result_are_told(jobs, told):
    async def work(job):
        job.progress(ProgressEvent("find", "Looking"))
        job.progress(ProgressEvent("start", "Starting (Queued)"))
        job.progress(ProgressEvent("start", "Starting (Provisioning)"))
        job.tell(workspace="hello")
        return {"answer": 42}

    job = jobs.start("connect", "hello", work)
    await until_ended(job)
    (seen,) = jobs.to_json()
    assert [step["message"] for step in seen["steps"]] == ["Looking", "Starting (Provisioning)"]
    assert (seen["state"], seen["result"], seen["detail"]) == ("done", {"answer": 42}, {"workspace": "hello"})
    assert len(told) >= 6


async def test_an_error_is_told_as_it_was_raised_and_another_one_without_its_inside(jobs, caplog):
    async def refused(job):
        error = PermissionsRequiredError("Grant them first.")
        error.url = "https://github.com/grant"
        raise error

    async def broken(job):
        raise ZeroDivisionError

    ours, foreign = jobs.start("create", "a/b", refused), jobs.start("create", "c/d", broken)
    await until_ended(ours)
    await until_ended(foreign)
    assert ours.error == {
        "message": "Grant them first.",
        "kind": "PermissionsRequiredError",
        "url": "https://github.com/grant",
    }
    assert foreign.state == "failed"
    assert "ZeroDivisionError" in foreign.error["message"]
    assert "Traceback" in caplog.text


async def test_the_same_work_is_not_begun_twice_and_can_be_cancelled(jobs):
    begun = []

    async def work(job):
        begun.append(job)
        await asyncio.Event().wait()

    first = jobs.start("connect", "hello", work)
    assert jobs.start("connect", "hello", work) is first
    other = jobs.start("connect", "world", work)
    await asyncio.sleep(0)
    assert begun == [first, other]
    jobs.end(first.job_id)
    await until_ended(first)
    assert (first.state, other.state) == ("cancelled", "running")
    await asyncio.sleep(0)
    jobs.end(first.job_id)
    assert [job["subject"] for job in jobs.to_json()] == ["world"]
    with pytest.raises(SettingsError, match="Begin it anew"):
        jobs.get(first.job_id)


async def test_what_is_cancelled_before_it_began_has_ended(jobs):
    job = jobs.start("connect", "hello", pytest.fail)
    jobs.end(job.job_id)
    await until_ended(job)
    assert job.state == "cancelled"


async def test_only_the_latest_ended_jobs_are_remembered(jobs):
    async def work(job):
        return {}

    for number in range(MOST_ENDED + 5):
        await until_ended(jobs.start("stop", str(number), work))
    assert len(jobs.to_json()) == MOST_ENDED
    assert jobs.to_json()[-1]["subject"] == str(MOST_ENDED + 4)
