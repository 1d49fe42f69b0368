"""Checks of a codespace: its tunnel, SSH server and what is in it, sound and broken in each place."""

import json
import os

import paramiko
import pytest

from codespace_kernels.bootstrap import ensure_server
from codespace_kernels.connection import CompletedCommand
from codespace_kernels.doctor import inside
from codespace_kernels.doctor.findings import Verdict
from codespace_kernels.emulator import tunnels_api
from codespace_kernels.emulator.machine import Machine
from codespace_kernels.progress import silent
from codespace_kernels.providers.github import pin_name
from codespace_kernels.ssh.hostkeys import HostKeyPins
from codespace_kernels.target import Account
from codespace_kernels.tunnel.codespace import connect_codespace
from tests.remote.local_connection import LocalConnection
from tests.tunnel.conftest import running

from .conftest import said

OK, NOTE, FAIL, SKIPPED = Verdict.OK, Verdict.NOTE, Verdict.FAIL, Verdict.SKIPPED
WAY = ("state", "properties", "tunnel-hosts", "tunnel", "relay", "tunnel-key", "agent", "ssh", "ssh-key")
INSIDE = ("python", "jupyter", "extension", "kernels")


@pytest.fixture
async def name(account):
    """A codespace that runs."""
    return (await running(account)).name


def first_cross(found) -> str:
    """Name of the only check that failed; those behind it must be skipped."""
    (failed,) = (name for name, result in found.items() if result.verdict is FAIL)
    return failed


async def test_a_sound_codespace(examiner, emulator):
    name = (await running(emulator)).name
    found = await examiner(examiner.subject(emulator.api_url, emulator.environment(), name=name), *WAY, *INSIDE)
    assert {each: found[each].verdict for each in (*WAY, *INSIDE)} == dict.fromkeys((*WAY, *INSIDE), OK)
    assert "16634" in said(found["tunnel"])
    assert "it has exec" in said(found["ssh"])
    assert "the first connection pins it" in said(found["ssh-key"])
    assert "python3" in [finding.subject for finding in found["kernels"].findings]
    assert "ipython " in said(found["kernels"])
    # To look is not to connect: nothing was pinned, uploaded or started.
    assert pins_of(emulator, name).pinned() is None
    home = emulator.account.codespaces[name].folder / "home"
    assert not (home / ".local" / "share" / "codespace-kernels").exists()


def pins_of(account, name):
    return HostKeyPins(pin_name(name, Account(api_url=account.api_url)))


async def test_by_repository(look, name):
    found = await look("state", name="octocat/hello-codespaces")
    assert name in said(found["state"])


async def test_unknown(look, codespace):
    found = await look("relay", name="nowhere")
    assert first_cross(found) == "state"
    assert codespace in said(found["state"])
    assert found["relay"].findings[0].found == 'skipped: because "State" failed'


class TestStopped:
    @pytest.fixture
    def account(self, emulator):
        return emulator

    async def test_is_not_started(self, look, account, codespace):
        found = await look("ssh", name=codespace)
        assert found["state"].verdict is NOTE
        assert "--start" in said(found["state"])
        assert "--start was not given" in said(found["ssh"])
        assert account.account.codespaces[codespace].state.value == "Shutdown"

    async def test_is_started_where_that_is_wanted(self, look, codespace):
        found = await look("tunnel", name=codespace, may_start=True)
        assert (found["state"].verdict, found["tunnel"].verdict) == (OK, OK)


@pytest.mark.parametrize(
    ("state", "verdict", "words"), [("Failed", FAIL, "Failed"), ("Rebuilding", NOTE, "Wait a moment")]
)
async def test_other_states(look, account, name, state, verdict, words):
    account.faults.set("state", name, state=state)
    found = await look("properties", name=name)
    assert found["state"].verdict is verdict
    assert words in said(found["state"])
    assert found["properties"].verdict is SKIPPED


@pytest.mark.parametrize(
    ("fault", "options", "check", "words"),
    [
        ("no-tunnel", {}, "properties", "no tunnel to it"),
        ("no-tunnel", {"status": 500}, "properties", "500"),
        ("token-expired", {}, "tunnel", "401"),
        ("relay-refusal", {"status": 403}, "relay", "403"),
        ("host-key", {"publishes": "other"}, "tunnel-key", "another key"),
        ("no-agent", {}, "agent", "start it again"),
        ("no-sshd", {}, "ssh", "ghcr.io/devcontainers/features/sshd:1"),
    ],
)
async def test_each_place_where_the_way_may_break(look, account, name, fault, options, check, words):
    account.faults.set(fault, name, **options)
    found = await look(*WAY, name=name)
    assert first_cross(found) == check
    assert words in said(found[check])
    behind = WAY[WAY.index(check) + 1 :]
    skipped = [each for each in behind if not (check == "properties" and each == "tunnel-hosts")]
    assert {found[each].verdict for each in skipped} == {SKIPPED}


async def test_properties_that_are_not_complete(look, account, name, monkeypatch):
    whole = Machine.tunnel_properties
    monkeypatch.setattr(Machine, "tunnel_properties", lambda self: {**whole(self), "clusterId": ""})
    found = await look("tunnel", name=name)
    assert first_cross(found) == "properties"
    assert "clusterId missing" in said(found["properties"])


async def test_tunnel_hosts_that_cannot_be_reached(look, account, name, monkeypatch):
    monkeypatch.setattr(account.emulator.tunnels, "base_url", "http://127.0.0.1:1")
    found = await look("relay", name=name)
    assert first_cross(found) == "tunnel-hosts"
    assert "port 1" in said(found["tunnel-hosts"])
    assert found["tunnel"].verdict is SKIPPED


async def test_a_relay_on_a_host_that_cannot_be_reached(look, account, name, monkeypatch):
    monkeypatch.setattr(tunnels_api, "_RELAY_PATH", ":1/relay")
    found = await look("relay", name=name)
    assert first_cross(found) == "relay"


async def test_a_tunnel_without_published_keys(look, account, name):
    account.faults.set("host-key", name, publishes="none")
    found = await look("ssh-key", name=name)
    assert found["tunnel-key"].verdict is NOTE
    assert found["ssh-key"].verdict is OK


class TestPinnedKeys:
    async def test_the_same(self, look, account, name, examiner):
        found = await look("ssh", name=name)
        key = examiner.subjects[-1].ssh_key
        pins_of(account, name).check(paramiko.PKey.from_type_string(key.key_type, key.key))
        found = await look("ssh-key", name=name)
        assert "the one that was pinned" in said(found["ssh-key"])

    async def test_another_behind_a_verified_tunnel(self, look, account, name):
        other = self.pin_another(account, name)
        found = await look("ssh-key", name=name)
        assert found["ssh-key"].verdict is NOTE
        assert "rebuild" in said(found["ssh-key"])
        assert pins_of(account, name).pinned().key == other.asbytes()

    async def test_another_behind_a_tunnel_that_nobody_vouches_for(self, look, account, name):
        self.pin_another(account, name)
        account.faults.set("host-key", name, publishes="none")
        found = await look("ssh-key", name=name)
        assert first_cross(found) == "ssh"
        assert "intercepting" in said(found["ssh"])

    @staticmethod
    def pin_another(account, name):
        other = paramiko.ECDSAKey.generate()
        pins_of(account, name).check(other)
        return other


async def test_a_shell_that_ends_at_once(look, account, name):
    home = account.account.codespaces[name].folder / "home"
    # bash reads it for commands over SSH, too.
    before = (home / ".bashrc").read_text()
    (home / ".bashrc").write_text("exit 3\n")
    try:
        found = await look("python", name=name)
    finally:
        (home / ".bashrc").write_text(before)
    if found["ssh"].verdict is OK:
        pytest.skip("this SSH server's bash does not read .bashrc")
    assert "exit status 3" in said(found["ssh"])


class TestInside:
    """What the examination of a codespace may come to."""

    OLD = {
        "python": "/usr/bin/python3",
        "prefix": "/usr",
        "version": "3.7.3",
        "jupyter_server": "1.24.0",
        "ipykernel": "",
    }
    NEW = {**OLD, "version": "3.11.7", "jupyter_server": "2.14.0", "ipykernel": "6.29"}
    SOUND = {
        "environments": [NEW],
        "serving": NEW["python"],
        "server": {"software": inside.__version__, "jupyter_server": "2.14.0"},
        "uploaded": True,
        "kernels": {"python3": {"display_name": "Python 3", "language": "python", "versions": {"python": "3.11.7"}}},
    }

    def test_sound(self):
        assert inside.judged_jupyter(self.SOUND).verdict is OK
        assert inside.judged_extension(self.SOUND).verdict is OK
        (kernel,) = inside.judged_kernels(self.SOUND)
        assert (kernel.subject, kernel.found) == ("python3", "Python 3, python 3.11.7")

    def test_old_jupyter(self):
        found = inside.judged_jupyter({**self.SOUND, "environments": [self.OLD], "serving": None})
        assert found.verdict is NOTE
        assert "1.24.0" in found.found

    def test_no_jupyter(self):
        bare = {**self.OLD, "jupyter_server": ""}
        assert inside.judged_jupyter({**self.SOUND, "environments": [bare], "serving": None}).verdict is NOTE

    def test_our_own_environment(self):
        assert inside.judged_jupyter({**self.SOUND, "serving": "/home/x/env/bin/python"}).verdict is OK

    def test_another_version_of_the_server(self):
        found = inside.judged_extension({**self.SOUND, "server": {"software": "0.0.1", "jupyter_server": "2"}})
        assert found.verdict is NOTE
        assert "0.0.1" in found.found

    def test_no_kernels(self):
        without = {**self.NEW, "ipykernel": ""}
        (found,) = inside.judged_kernels({**self.SOUND, "kernels": {}, "environments": [without]})
        assert found.verdict is FAIL
        assert "--install-ipykernel /usr/bin/python3" in found.fix
        (found,) = inside.judged_kernels({**self.SOUND, "kernels": {}})
        assert found.verdict is FAIL
        (found,) = inside.judged_kernels({**self.SOUND, "kernels": {}, "serving": None})
        assert found.verdict is NOTE

    def test_old_python(self):
        found = inside.no_python(["Python 3.6.9"])
        assert found.verdict is FAIL
        assert "Python 3.6.9" in found.found
        assert "there is none" in inside.no_python([]).found


class Answers:
    """An SSH session to a codespace whose shell answers in an order."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)

    async def run(self, command, *, stdin=b"", timeout=60.0):
        return CompletedCommand(0, self.answers.pop(0), b"what it said last\n")


async def test_a_codespace_without_a_python_that_will_do(examiner):
    subject = examiner.subject(name="hello")
    subject.ssh = Answers(b'codespace-kernels: {"result": "no_python"}\n', b"Python 3.6.9\n")
    finding = await inside.python(subject)
    assert "Python 3.6.9" in finding.found
    subject.ssh = Answers(b"welcome!\n")
    with pytest.raises(inside.RemoteServerError, match="what it said last"):
        await inside.python(subject)


class TestScript:
    """The script that looks around, in a home folder of this machine."""

    @pytest.fixture
    async def subject(self, examiner, tmp_path):
        (tmp_path / "tmp").mkdir()
        (tmp_path / "home").mkdir()
        unset = ("XDG_DATA_HOME", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
        env = {**dict.fromkeys(unset), "TMPDIR": str(tmp_path / "tmp"), "SHELL": "/bin/sh"}
        subject = examiner.subject(name="hello")
        subject.ssh = LocalConnection(tmp_path / "home", env)
        return subject

    async def test_leaves_nothing_behind(self, subject, tmp_path):
        finding = await inside.python(subject)
        assert finding.verdict is OK
        assert subject.inside["server"] is None
        assert not subject.inside["uploaded"]
        assert "python3" in subject.inside["kernels"]
        assert [*(tmp_path / "tmp").iterdir(), *(tmp_path / "home").iterdir()] == []

    async def test_sees_servers_that_are_not_ours(self, subject, tmp_path):
        folder = tmp_path / "home" / ".local" / "share" / "jupyter" / "runtime"
        folder.mkdir(parents=True)
        server = {"pid": os.getpid(), "port": 8888, "url": "http://localhost:8888/lab", "token": "canary"}
        (folder / "jpserver-1.json").write_text(json.dumps(server))
        (folder / "jpserver-2.json").write_text(json.dumps({**server, "pid": 2**22 + 1}))
        (folder / "jpserver-3.json").write_text("{")
        await inside.python(subject)
        assert subject.inside["others"] == [{"port": 8888, "scheme": "http", "host": "localhost", "path": "/lab"}]


async def test_our_server_there_is_seen(examiner, emulator):
    target = await running(emulator)
    connection = await connect_codespace(target.properties, name=target.name, progress=silent)
    try:
        server = await ensure_server(connection)
        server.close()
        subject = examiner.subject(emulator.api_url, emulator.environment(), name=target.name)
        found = await examiner(subject, "extension", "jupyter")
    finally:
        await connection.close()
    assert f"{inside.__version__} runs" in said(found["extension"])
    assert found["jupyter"].verdict is OK
    assert subject.inside["others"] == []
