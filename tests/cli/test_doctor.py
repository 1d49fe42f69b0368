"""`doctor` as a person meets it: what it prints, its exit code, and the report."""

import datetime
import json
import os
import platform

import pytest

from codespace_kernels import settings
from codespace_kernels.cli import doctor_page
from codespace_kernels.doctor.findings import Check, Finding, Group, Result, Verdict, fail, ok
from codespace_kernels.emulator.models import User

from .conftest import error_line, run_cli
from .test_codespaces import in_terminal


class TestHealthy:
    """An account in which everything is as it should be."""

    @pytest.fixture(scope="class")
    @classmethod
    def emulator_options(cls):
        return {"repositories": ("c4nary-owner/c4nary-repo",), "transition_seconds": 0.1}

    @pytest.mark.e2e
    def test_everything_is_well_and_the_report_tells_no_names(self, own_account, home, tmp_path):
        own_account.account.user = User("c4nary-login")
        (codespace,) = own_account.account.codespaces
        assert run_cli("connect", codespace).returncode == 0
        code, shown = in_terminal("doctor", codespace, "--report", str(tmp_path / "first.md"))
        assert code == 0
        # There is no VS Code in a test's home; the panel is there only where it was built.
        notes = [line for line in shown.splitlines() if "•" in line and "VS Code" not in line and "Panel" not in line]
        assert (notes, shown.count("✗"), "skipped" in shown) == ([], 0, False)
        assert shown.count("✓") > 35
        assert all(heading in shown for heading in ("Account", "Network", "This computer"))
        assert f"Codespace {codespace}" in shown
        file = tmp_path / "second.md"
        done = run_cli("doctor", codespace, "--report", str(file), "--json", env=self.canaries(home))
        document = json.loads(done.stdout)
        assert (done.returncode, document["ok"], document["codespace"]) == (0, True, codespace)
        # They are there for whoever sits here.
        assert "c4nary-mail" in done.stdout
        text = file.read_text()
        assert file.stat().st_mode & 0o777 == 0o666 & ~self.umask()
        for word in (codespace, "c4nary", own_account.token, "203.0.113.7", "2001:db8", platform.node()):
            assert word.lower() not in text.lower(), word
        assert "<owner-1>" in text
        assert "<codespace-1>" in text

    @staticmethod
    def umask() -> int:
        mask = os.umask(0o022)
        os.umask(mask)
        return mask

    @staticmethod
    def canaries(home) -> dict[str, str]:
        """Put something to be hidden wherever a report takes its words from; give the environment's part of it."""
        now = f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S},000 ERROR x: "  # noqa: DTZ005  (logs have local time)
        lines = (
            "ghp_c4nary1 github_pat_c4nary eyJc4nary.eyJc4nary.c4nary Authorization: Bearer c4nary",
            "http://[::1]/?token=c4nary https://c4nary:c4nary@203.0.113.7/ 2001:db8::1 c4nary-mail@c4nary.example",
            "c4nary-login has c4nary-owner/c4nary-repo in /home/c4nary-user",
        )
        with (settings.state_dir() / "broker.log").open("a") as log:
            log.write("".join(f"{now}{line}\n" for line in lines))
        (home / "c4nary-home").mkdir()
        return {
            "HTTPS_PROXY": "http://c4nary-user:c4nary-password@c4nary-proxy.example:3128",
            "LOGNAME": "c4nary-user",
            "HOME": str(home / "c4nary-home"),
        }


def test_problems_end_with_1(codespace, signed_in):
    signed_in.faults.set("unauthorized", on="user")
    try:
        done = run_cli("doctor")
    finally:
        signed_in.faults.clear()
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "Account"
    assert "✗ Signed in" in done.stdout
    assert "→ Sign in with" in done.stdout
    assert 'skipped: because "Signed in" failed (Scopes, Expiry)' in done.stdout
    assert lines[-1].startswith("1 problem, ")


def test_a_stopped_codespace_is_not_started(own_account):
    (name,) = own_account.account.codespaces
    done = run_cli("doctor", name, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"]) == (0, True)
    verdicts = {entry["check"]: entry["verdict"] for entry in document["findings"]}
    assert (verdicts["state"], verdicts["relay"]) == ("note", "skipped")
    assert set(document["findings"][0]) == {
        "check", "title", "group", "subject", "verdict", "found", "fix", "seconds"
    }  # fmt: skip
    assert own_account.account.codespaces[name].state.value == "Shutdown"


def test_start(own_account):
    (name,) = own_account.account.codespaces
    done = run_cli("doctor", name, "--start")
    assert done.returncode == 0
    assert "✓ Relay" in done.stdout
    assert own_account.account.codespaces[name].state.value == "Available"


def test_ascii(codespace):
    done = run_cli("doctor", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "  + Token" in done.stdout
    assert "  * VS Code" in done.stdout
    assert "->" in done.stdout
    assert done.stdout.isascii()


class TestReportFile:
    def test_is_not_overwritten(self, codespace, tmp_path):
        file = tmp_path / "there.md"
        file.write_text("mine")
        done = run_cli("doctor", "--report", str(file))
        assert done.returncode == 2
        assert "--force" in error_line(done)
        assert file.read_text() == "mine"
        assert run_cli("doctor", "--report", str(file), "--force").returncode == 0
        assert file.read_text().startswith("# codespace-kernels doctor")

    @pytest.mark.parametrize(("answer", "code", "replaced"), [("y\n", 0, True), ("\n", 1, False)])
    def test_asks(self, codespace, tmp_path, answer, code, replaced):
        file = tmp_path / "there.md"
        file.write_text("mine")
        ended, shown = in_terminal("doctor", "--report", str(file), answer=answer)
        assert ended == code
        assert "there already" in shown
        assert (file.read_text() != "mine") is replaced

    def test_has_a_name_of_its_own(self, codespace, tmp_path):
        done = run_cli("doctor", "--report", cwd=tmp_path)
        assert done.returncode == 0
        assert [path.name for path in tmp_path.iterdir()] == ["codespace-kernels-report.md"]
        assert "Wrote codespace-kernels-report.md" in done.stderr

    def test_in_a_folder_that_is_not_there(self, codespace, tmp_path):
        done = run_cli("doctor", "--report", str(tmp_path / "nowhere" / "report.md"))
        assert done.returncode == 2
        assert done.stdout == ""


def test_start_needs_a_name(codespace):
    assert "NAME" in error_line(run_cli("doctor", "--start"))


class TestPage:
    """What is shown, of results that are made here."""

    @staticmethod
    async def run(subject):
        return ok("")

    def check(self, name, group=Group.ACCOUNT):
        return Check(name.lower(), name, group, self.run)

    def test_lines(self, capsys):
        one, two = self.check("One"), self.check("Second", Group.CODESPACE)
        with doctor_page.DoctorPage([one, two], "hello", quiet=False) as page:
            page.show(Result(one, (ok("fine"), fail("[bold]broken", "mend it", "this")), 2.0))
            page.show(Result(two, (ok("fine"),), 0.1))
        assert capsys.readouterr().out.splitlines() == [
            "Account",
            "  ✓ One     fine (2.0 s)",
            "  ✗         this: [bold]broken",
            "            → mend it",
            "",
            "Codespace hello",
            "  ✓ Second  fine",
            "",
            "1 problem.",
        ]

    def test_skipped_ones_share_a_line(self, capsys):
        skipped = (Finding(Verdict.SKIPPED, "skipped: because of this", blocks="this"),)
        checks = [self.check(name) for name in ("One", "Two", "Three")]
        with doctor_page.DoctorPage(checks, "", quiet=False) as page:
            for each in checks:
                page.show(Result(each, skipped, 0.0))
        assert "  - 3 more  skipped: because of this (One, Two, Three)" in capsys.readouterr().out

    def test_quiet(self, capsys):
        one = self.check("One")
        with doctor_page.DoctorPage([one], "", quiet=True) as page:
            page.show(Result(one, (ok("fine"),), 0.0))
        assert capsys.readouterr().out == ""
