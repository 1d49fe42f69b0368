"""The report and the answers to open questions."""

import datetime

from codespace_kernels.doctor.findings import Check, Group, Result, fail, ok
from codespace_kernels.doctor.questions import NOT_OBSERVED, answers, shape, token_lifetime
from codespace_kernels.doctor.report import report
from tests.tunnel.conftest import running


def by_question(subject) -> list[str]:
    return [answer.answer for answer in answers(subject)]


def test_nothing_was_seen(examiner):
    found = by_question(examiner.subject())
    assert len(found) == 16
    assert all(answer.startswith(NOT_OBSERVED) for answer in found)


async def test_a_codespace_was_seen(examiner, emulator):
    target = await running(emulator)
    subject = examiner.subject(emulator.api_url, emulator.environment(), name=target.name)
    await examiner(subject, "kernels")
    found = by_question(subject)
    assert "connectAccessToken: 86400 s, managePortsAccessToken: 86400 s" in found[2]
    assert "another kind; to it, status 200" in found[3]
    assert "would start one" in found[5]
    assert "fields with a time to come: none" in found[7]
    assert "16634 (InternalPort, http)" in found[8]
    assert "16634" in found[8].partition("Announced by `tcpip-forward`: ")[2]
    assert found[9] == "'app.github.dev'"
    assert "Available (1)" in found[11]
    text = report(subject, [])
    assert "connection.tunnelProperties.connectAccessToken: text" in text
    assert "`x-ratelimit-remaining`" in text
    assert "allowed_port_privacy_settings" in text
    for secret in (target.name, "octocat", "hello-codespaces", target.properties.tunnel_id, emulator.token):
        assert secret not in text


async def test_a_fine_grained_token(examiner, account, monkeypatch):
    from codespace_kernels.emulator import state

    token = account.account.add_token("fine-grained")
    name = (await running(account)).name
    monkeypatch.setattr(state, "emulator_token", lambda _: token.value)
    subject = examiner.subject(account.api_url, name=name)
    subject.name = name
    await examiner(subject, "codespaces")
    await subject.api.ask(
        f"/user/codespaces/{name}", subject.token, {"internal": "true"}, shown="/user/codespaces/{name}?internal=true"
    )
    assert by_question(subject)[3] == "to a token github_…: status 200, without `connection`"


def test_fields_with_a_time_to_come(examiner):
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=12)
    subject = examiner.subject()
    subject.codespaces = [{"ends_at": later.isoformat(), "created_at": "2020-01-01T00:00:00Z", "name": "x"}]
    assert "fields with a time to come: ends_at;" in by_question(subject)[7]


def test_servers_that_run(examiner):
    subject = examiner.subject()
    subject.inside = {"others": [{"port": 8888, "scheme": "http", "host": "localhost", "path": "/lab"}]}
    assert "port 8888, http://localhost:PORT/lab" in by_question(subject)[5]


def test_shape_has_no_values():
    value = {
        "a": {"b": ["secret"], "c": None, "d": 1.5, "e": True},
        "owner": {"login": "secret"},
        "f": [{"g": "secret"}],
    }
    assert list(shape(value)) == [
        ("a.b", "list of 1"), ("a.b[]", "text"), ("a.c", "null"), ("a.d", "number"), ("a.e", "bool"),
        ("owner", "object"), ("f", "list of 1"), ("f[].g", "text"),
    ]  # fmt: skip


def test_lifetime_of_what_is_no_token():
    assert [token_lifetime(text) for text in ("", "a.b.c", "opaque", "a.e30.c")] == [None] * 4


def test_what_others_wrote_is_no_markup(examiner):
    async def run(subject):
        return ok("")

    check = Check("log", "Log", Group.COMPUTER, run)
    result = Result(check, (fail("said <img src=x>\n# not a heading", "mend\nit", "one"),), 2.34)
    text = report(examiner.subject(), [result])
    assert "- ✗ **Log** `one`: said \\<img src=x> # not a heading (2.3 s)\n  - mend it\n" in text
