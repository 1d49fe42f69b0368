"""Checks of the network, on a small internet of loopback ports."""

import socket

import pytest

from codespace_kernels.doctor import api as doctor_api
from codespace_kernels.doctor import reach as way
from codespace_kernels.doctor.findings import Verdict
from codespace_kernels.doctor.network import proxies_of, tls, without_login
from codespace_kernels.doctor.reach import Place, Reach, Step, reach
from tests.tunnel.conftest import Answer, HttpService

from .conftest import said
from .internet import ISSUER, Authority, Internet

OK, NOTE, FAIL, SKIPPED = Verdict.OK, Verdict.NOTE, Verdict.FAIL, Verdict.SKIPPED
GITHUB = ("api.github.com", "github.com", "global.rel.tunnels.api.visualstudio.com")
TOKEN = {"GH_TOKEN": "ghp_canary"}


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def closed_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


class TestSteps:
    async def test_name(self):
        reached = await reach(Place("nowhere.invalid"))
        assert reached.failed is Step.NAME

    async def test_connection(self, closed_port):
        reached = await reach(Place("127.0.0.1", closed_port))
        assert reached.failed is Step.CONNECTION

    async def test_no_tls_there(self, monkeypatch):
        # Somebody listens and says nothing: the handshake is given up.
        monkeypatch.setattr(way, "STEP_SECONDS", 1.0)
        with socket.create_server(("127.0.0.1", 0)) as server:
            reached = await reach(Place("127.0.0.1", server.getsockname()[1]))
        assert (reached.failed, reached.why) == (Step.TLS, "no answer within 1 s")

    async def test_plain(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            assert (await reach(Place("127.0.0.1", server.getsockname()[1], secure=False))).failed is None

    @pytest.mark.parametrize(
        ("url", "place"),
        [
            ("https://api.github.com", Place("api.github.com")),
            ("wss://data.example/x", Place("data.example")),
            ("http://127.0.0.1:8080/", Place("127.0.0.1", 8080, False)),
        ],
    )
    def test_places(self, url, place):
        assert Place.of(url) == place


class TestGitHub:
    """github.com, played by a server on this machine that a proxy leads to."""

    NAMES = ("token", "proxy", "api-host", "hosts", "api", "api-version", "clock", "meta", "tls")

    async def look(self, examiner, internet, monkeypatch, *names):
        monkeypatch.setenv("HTTPS_PROXY", internet.proxy)
        return await examiner(examiner.subject(env=TOKEN), *(names or self.NAMES))

    async def test_inspected_and_trusted(self, examiner, authority, monkeypatch):
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        async with Internet(authority, *GITHUB) as internet:
            found = await self.look(examiner, internet, monkeypatch)
        assert {name: found[name].verdict for name in self.NAMES} == {
            **dict.fromkeys(self.NAMES, OK),
            # This server says neither the time nor names.
            "clock": NOTE,
            "meta": NOTE,
            "tls": NOTE,
        }
        assert ISSUER in said(found["tls"])
        assert "through the proxy 127.0.0.1:" in said(found["api-host"])
        assert "global.rel.tunnels" in said(found["hosts"])
        assert internet.requests == ["/user", "/meta"]

    async def test_inspected_and_not_trusted(self, examiner, authority, monkeypatch):
        async with Internet(authority, *GITHUB) as internet:
            found = await self.look(examiner, internet, monkeypatch)
        assert {found[name].verdict for name in ("api-host", "hosts", "tls")} == {FAIL}
        assert ISSUER in said(found["tls"])
        assert "SSL_CERT_FILE" in said(found["tls"])
        assert found["api"].verdict is SKIPPED
        assert internet.requests == []

    async def test_a_proxy_that_lets_some_names_through(self, examiner, authority, monkeypatch):
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        async with Internet(authority, *GITHUB[:2]) as internet:
            found = await self.look(examiner, internet, monkeypatch)
        assert found["api"].verdict is OK
        reached, refused = found["hosts"].findings
        assert (reached.verdict, refused.verdict) == (OK, FAIL)
        assert refused.subject == GITHUB[2]
        assert "403 Forbidden by rule 7" in refused.found
        assert f"CONNECT {GITHUB[2]}:443" in refused.fix

    async def test_a_proxy_with_a_login(self, examiner, authority, monkeypatch):
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        async with Internet(authority, *GITHUB, login="canary:canary-password") as internet:
            found = await self.look(examiner, internet, monkeypatch, "proxy", "api")
            assert found["api"].verdict is OK
            assert "canary" not in said(found["proxy"])
            monkeypatch.setenv("HTTPS_PROXY", internet.proxy.replace("canary-password", "wrong"))
            refused = await examiner(examiner.subject(env=TOKEN), "api-host")
        assert "407" in said(refused["api-host"])

    async def test_a_proxy_that_is_not_there(self, examiner, closed_port, monkeypatch):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port}")
        found = await examiner(examiner.subject(env=TOKEN), "api", "hosts")
        assert found["proxy"].verdict is FAIL
        assert {found[name].verdict for name in ("api-host", "hosts", "api")} == {SKIPPED}

    async def test_a_proxy_of_another_kind(self, examiner, monkeypatch):
        monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
        found = await examiner(examiner.subject(env=TOKEN), "proxy")
        assert found["proxy"].verdict is FAIL
        assert "http://" in said(found["proxy"])

    async def test_a_broken_setting(self, examiner, monkeypatch):
        monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
        found = await examiner(examiner.subject(env=TOKEN), "api-host", "tls")
        assert "SSL_CERT_FILE is /nowhere.pem" in said(found["api-host"])
        assert found["tls"].verdict is FAIL


async def test_names_that_are_not_found(examiner):
    found = await examiner(examiner.subject("https://github.invalid/api/v3", env=TOKEN), "api", "hosts", "tls")
    assert found["api-host"].verdict is FAIL
    assert "DNS" in said(found["api-host"])
    assert found["hosts"].findings[0].subject == "github.invalid"
    assert found["tls"].verdict is NOTE


async def test_no_connection(examiner, closed_port):
    found = await examiner(examiner.subject(f"http://127.0.0.1:{closed_port}", env=TOKEN), "api")
    assert found["api-host"].verdict is FAIL
    assert str(closed_port) in said(found["api-host"])


async def test_somebody_else_answers(examiner):
    async with HttpService(lambda method, target: Answer(200, {"login": "x"})) as service:
        found = await examiner(examiner.subject(service.url.rstrip("/"), env=TOKEN), "api-version")
    assert found["api"].verdict is FAIL
    assert "not like GitHub" in said(found["api"])
    assert found["api-version"].verdict is SKIPPED


async def test_the_system_trusts_what_we_do_not(examiner):
    subject = examiner.subject()
    place = Place("api.github.com")
    subject.reaches = [Reach(place, Step.TLS, "self-signed certificate", "", ISSUER, False, trusted_by_system=True)]
    (finding,) = await tls(subject)
    assert finding.verdict is FAIL
    assert ISSUER in finding.found


class TestAnswers:
    async def test_sound(self, look):
        names = ("api-host", "hosts", "api", "api-version", "clock", "meta", "proxy", "tls")
        found = await look(*names)
        assert {found[name].verdict for name in names} == {OK}

    async def test_a_retired_version(self, look, account):
        account.faults.set("api-version")
        found = await look("api-version", "signed-in")
        assert found["api-version"].verdict is FAIL
        assert "Upgrade" in said(found["api-version"])
        assert found["signed-in"].verdict is SKIPPED

    async def test_a_deprecated_version(self, look, account):
        account.faults.set("api-version", how="deprecated")
        found = await look("api-version", "signed-in")
        assert found["api-version"].verdict is NOTE
        assert "ends on" in said(found["api-version"])
        assert found["signed-in"].verdict is OK

    async def test_a_version_that_the_server_does_not_know(self, look, monkeypatch):
        monkeypatch.setitem(doctor_api.HEADERS, "X-GitHub-Api-Version", "2999-01-01")
        assert (await look("api-version"))["api-version"].verdict is FAIL

    @pytest.mark.parametrize(("seconds", "words"), [(7300, "behind"), (-600, "10 min ahead")])
    async def test_a_wrong_clock(self, look, account, seconds, words):
        account.faults.set("clock", seconds=seconds)
        found = await look("clock")
        assert found["clock"].verdict is FAIL
        assert words in said(found["clock"])

    async def test_names_that_github_lists(self, look, account):
        account.faults.set("network-names", names="nowhere.invalid,*.example.invalid")
        found = await look("meta")
        assert [finding.verdict for finding in found["meta"].findings] == [FAIL, OK]
        assert "nowhere.invalid" in said(found["meta"])
        assert "*.example.invalid" in said(found["meta"])


def test_logins_are_not_shown():
    assert without_login("http://me:secret@proxy:3128") == "http://***@proxy:3128"
    assert without_login("me:secret@proxy") == "***@proxy"
    assert without_login("http://proxy:3128") == "http://proxy:3128"
    env = {"HTTPS_PROXY": "http://me:pw@proxy", "no_proxy": "localhost", "PATH": "/bin", "HTTP_PROXY": ""}
    assert proxies_of(env) == {"HTTPS_PROXY": "http://***@proxy", "no_proxy": "localhost"}
