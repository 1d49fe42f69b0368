"""How checks are made: at once, bounded, and not behind one that failed."""

import asyncio

import pytest

from codespace_kernels.doctor.examination import examine, failure
from codespace_kernels.doctor.findings import Check, Group, Verdict, fail, note, ok
from codespace_kernels.errors import SettingsError, TunnelError, WaitTimeoutError


def check(name, run, *needs, after=(), seconds=60.0):
    return Check(name, name.capitalize(), Group.ACCOUNT, run, needs, after, seconds)


def gives(finding):
    async def run(subject):
        return finding

    return run


async def results_of(*checks):
    return {result.check.name: result async for result in examine(checks, None)}


async def test_what_hangs_on_a_failure_is_skipped_with_the_first_reason():
    found = await results_of(
        check("last", gives(ok("fine")), "middle"),
        check("middle", gives(ok("fine")), "first", "other"),
        check("other", gives(note("worth knowing"))),
        check("first", gives(fail("broken", "mend it"))),
    )
    assert list(found) == ["last", "middle", "other", "first"]
    for name in ("middle", "last"):
        (finding,) = found[name].findings
        assert (finding.verdict, finding.found) == (Verdict.SKIPPED, 'skipped: because "First" failed')


async def test_a_note_may_block_with_a_reason_of_its_own():
    found = await results_of(
        check("state", gives(note("stopped", blocks="it is stopped"))), check("tunnel", gives(ok("")), "state")
    )
    assert found["tunnel"].findings[0].found == "skipped: because it is stopped"


async def test_what_only_comes_after_is_made_all_the_same():
    found = await results_of(check("b", gives(ok("fine")), after=("a", "nowhere")), check("a", gives(fail("", ""))))
    assert found["b"].verdict is Verdict.OK


async def test_independent_checks_are_made_at_once():
    barrier = asyncio.Barrier(3)

    async def run(subject):
        await barrier.wait()
        return ok("met the others")

    found = await results_of(*(check(name, run) for name in "abc"))
    assert {result.verdict for result in found.values()} == {Verdict.OK}


async def test_a_check_is_given_up_and_says_after_how_long():
    async def run(subject):
        await asyncio.Event().wait()

    found = await results_of(check("slow", run, seconds=0.05))
    assert found["slow"].verdict is Verdict.FAIL
    assert "after 0.05 s" in found["slow"].findings[0].found


async def test_errors_and_defects_are_findings():
    async def refused(subject):
        raise SettingsError("GH_HOST is '?', which is no host name. Set it to a name such as github.com.")

    async def defect(subject):
        raise RuntimeError("oops")

    found = await results_of(check("refused", refused), check("defect", defect))
    assert found["refused"].findings == (
        fail("GH_HOST is '?', which is no host name", "Set it to a name such as github.com."),
    )
    assert "RuntimeError: oops" in found["defect"].findings[0].found
    assert "defect" in found["defect"].findings[0].fix


@pytest.mark.parametrize(
    ("error", "found", "fix"),
    [
        (
            TunnelError("It refused (HTTP 403, no e.g. here). Sign in again."),
            "It refused (HTTP 403, no e.g. here)",
            "Sign",
        ),
        (WaitTimeoutError.after("the relay", 30), "Gave up after 30 s waiting for the relay", "Try again"),
    ],
)
def test_an_error_is_taken_apart(error, found, fix):
    finding = failure(error)
    assert finding.found == found
    assert finding.fix.startswith(fix)


async def test_the_worst_finding_counts():
    found = await results_of(check("several", gives([ok("a"), fail("b", "c"), note("d")])))
    assert found["several"].verdict is Verdict.FAIL
    assert [entry["verdict"] for entry in found["several"].to_json()] == ["ok", "fail", "note"]
