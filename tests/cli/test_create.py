"""`create` against an emulated account: by flags alone, and by answering its questions in a terminal."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import termios

import httpx
import pytest

from codespace_kernels.cli import main
from codespace_kernels.cli.create_questions import machine_line
from codespace_kernels.providers.choices import MachineOffer
from tests.terminals import Terminal

from .conftest import COMMAND, TIMEOUT, error_line, run_cli

REPOSITORY = "octocat/hello-codespaces"
MACHINE = ("--machine", "basicLinux32gb")
AT_ONCE = (REPOSITORY, "--yes", *MACHINE, "--no-wait")

DOWN, ENTER, CTRL_C, CTRL_D = "\x1b[B", "\r", "\x03", "\x04"


@pytest.fixture(scope="module")
def emulator_options():
    return {"codespaces": 0, "transition_seconds": 0.1, "own_environment": False}


@pytest.fixture
def codespaces(own_account):
    """The account's codespaces, live."""
    return own_account.account.codespaces


@pytest.fixture
def add(own_account):
    """Add a repository; gives it."""

    def add(name, *, branches=("main",), **options):
        async def work():
            made = own_account.account.add_repository(name, **options)
            made.branches[:] = branches
            return made

        return own_account.call(work())

    return add


def asked(*arguments: str, **kwargs) -> Terminal:
    """Start `create` in a terminal, which does not answer where the cursor stands."""
    return Terminal([*COMMAND, "create", *arguments], columns=120, PROMPT_TOOLKIT_NO_CPR="1", **kwargs)


@contextlib.contextmanager
def started(*arguments: str):
    """Start `create` without a terminal; it is killed at the end."""
    with subprocess.Popen(
        [*COMMAND, "create", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read what it says until this is said."""
    for line in process.stderr:
        print(line, end="")
        if text in line:
            return
    raise AssertionError(f"{text!r} was never said")


class TestFlags:
    def test_prints_the_name_only(self, codespaces):
        done = run_cli(
            "create", REPOSITORY, "--yes", "--display-name", "Tea pot", "--idle-timeout", "10", "--retention", "60",
            "--branch", "main", *MACHINE, "--location", "WestEurope", "--no-wait",
        )  # fmt: skip
        assert done.returncode == 0
        (made,) = codespaces.values()
        assert done.stdout == f"{made.name}\n"
        assert "octocat pays" in done.stderr
        assert (made.display_name, made.idle_timeout_minutes, made.retention_period_minutes) == ("Tea pot", 10, 60)

    def test_json(self, codespaces):
        done = run_cli("create", *AT_ONCE, "--json")
        (made,) = codespaces
        assert json.loads(done.stdout)["codespace"]["name"] == made

    def test_waits_and_shows_the_steps_of_the_build(self, own_account, codespaces):
        own_account.faults.set("build-step", status="running")
        with started(REPOSITORY, "--yes", *MACHINE) as process:
            wait_for(process, "Running postCreateCommand")
            own_account.faults.set("build-step", status="failed")
            out, rest = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
        (made,) = codespaces.values()
        assert (out, made.state.value) == (f"{made.name}\n", "Available")
        assert "postCreateCommand failed." in rest
        assert f"codespace-kernels logs {made.name}" in rest
        assert f"codespace-kernels connect {made.name}" in rest

    def test_needs_consent(self, codespaces):
        done = run_cli("create", REPOSITORY)
        assert done.returncode == 2
        assert "--yes" in error_line(done)
        assert not codespaces

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ((), "OWNER/REPO"),
            ((REPOSITORY,), "--machine: basicLinux32gb (2 cores, 8 GB RAM, 32 GB storage · $0.18 an hour), "),
            ((REPOSITORY, *MACHINE, "--idle-timeout", "1"), "5 to 240"),
            ((REPOSITORY, *MACHINE, "--branch", "mein"), "Did you mean main"),
            ((REPOSITORY, *MACHINE, "--devcontainer-path", "x.json"), ".devcontainer/devcontainer.json"),
            ((REPOSITORY, *MACHINE, "--location", "Mars"), "WestEurope"),
            ((REPOSITORY, "--machine", "cray"), "basicLinux32gb"),
            (("octocat/several", *MACHINE), "--devcontainer-path: .devcontainer/a/devcontainer.json, "),
        ],
    )
    def test_what_is_missing_or_wrong(self, codespaces, add, capsys, arguments, said):
        several = add("octocat/several")
        several.files = {f".devcontainer/{name}/devcontainer.json": "{}" for name in "ab"}
        assert main(["create", *arguments, "--yes"]) == 2
        assert said in capsys.readouterr().err.splitlines()[-1]
        assert not codespaces

    def test_an_unknown_repository(self, codespaces, capsys):
        assert main(["create", "octocat/nowhere", "--yes"]) == 1
        said = capsys.readouterr().err
        assert "pays" not in said
        assert "octocat/nowhere" in said.splitlines()[-1]

    def test_the_only_machine_type_is_taken(self, own_account, codespaces):
        own_account.faults.set("policy", machines="premiumLinux", idle_timeout=15, retention=1440)
        done = run_cli("create", REPOSITORY, "--yes", "--no-wait", "--idle-timeout", "60", "--retention", "43200")
        (made,) = codespaces.values()
        assert made.machine_type.name == "premiumLinux"
        assert "fewer than 8 cores are not offered" in done.stderr
        assert "idle timeout to 15 minutes" in done.stderr
        assert "1440 minutes after it was stopped, not 43200" in done.stderr

    def test_permissions(self, own_account, codespaces):
        own_account.faults.set("permissions")
        done = run_cli("create", *AT_ONCE)
        assert done.returncode == 1
        assert "/codespaces/allow_permissions" in error_line(done)
        assert "--default-permissions" in error_line(done)
        assert not codespaces
        assert run_cli("create", *AT_ONCE, "--default-permissions").returncode == 0

    def test_a_display_name_that_is_taken(self, codespaces):
        named = ("--display-name", "Tea pot")
        first = run_cli("create", *AT_ONCE, *named).stdout.strip()
        done = run_cli("create", *AT_ONCE, *named)
        assert len(codespaces) == 2
        assert f"{first} has the display name 'Tea pot'" in done.stderr


@pytest.mark.parametrize(
    ("prebuild", "price", "line"),
    [
        ("ready", 0.18, "2 cores · $0.18 an hour · prebuilt: starts fast"),
        ("in_progress", None, "2 cores · its prebuild is under way"),
        ("none", None, "2 cores"),
    ],
)
def test_a_machine_type_in_one_line(prebuild, price, line):
    assert machine_line(MachineOffer("basic", "2 cores", 2, 0, 0, prebuild, price)) == line


class TestInterruptedCreation:
    def test_a_run_that_was_killed_is_gone_on_with(self, own_account, codespaces):
        def cut_off(fault, active):
            if fault.kind == "no-answer" and not active and fault.options["done"]:
                own_account.faults.set("no-answer", on="repository-list")

        # The creation is done, its answer is lost, and from then on nobody can be reached.
        own_account.faults.set("no-answer", on="create", done=1, count=1)
        own_account.faults.subscribe(cut_off)
        with started(*AT_ONCE) as process:
            wait_for(process, "GitHub did not answer; looking")
        own_account.faults.clear()
        (made,) = codespaces
        done = run_cli("create", *AT_ONCE)
        assert done.stdout == f"{made}\n"
        assert f"Going on with {made}" in done.stderr

    def test_one_that_took_too_long(self, own_account, codespaces):
        own_account.faults.set("slow-start", seconds=60.0, count=1)
        done = run_cli("create", REPOSITORY, "--yes", *MACHINE, "--timeout", "0.5")
        (made,) = codespaces
        assert done.returncode == 1
        assert made in error_line(done)
        again = run_cli("create", *AT_ONCE)
        assert again.stdout == f"{made}\n"
        # That one was seen through: the next is another.
        assert run_cli("create", *AT_ONCE).stdout != f"{made}\n"

    def test_nothing_is_gone_on_with_after_a_refusal(self, own_account, codespaces):
        own_account.faults.set("payment", on="create", count=1)
        refused = run_cli("create", *AT_ONCE)
        assert "billing issue" in error_line(refused)
        httpx.post(
            f"{own_account.api_url}/repos/{REPOSITORY}/codespaces",
            json={"machine": "basicLinux32gb"},
            headers={"Authorization": f"token {own_account.token}"},
            trust_env=False,
        )
        (elsewhere,) = codespaces
        assert run_cli("create", *AT_ONCE).stdout != f"{elsewhere}\n"

    def test_an_outage_of_the_network_while_waiting(self, own_account, codespaces):
        # One more than one look is tried again by itself.
        own_account.faults.set("no-answer", on="get-internal", count=5)
        done = run_cli("create", REPOSITORY, "--yes", *MACHINE)
        assert done.returncode == 0
        assert "GitHub cannot be reached; trying again" in done.stderr
        assert [made.state.value for made in codespaces.values()] == ["Available"]

    def test_an_error_while_waiting_names_the_codespace(self, own_account, codespaces):
        own_account.faults.set("unauthorized", on="get-internal")
        done = run_cli("create", REPOSITORY, "--yes", *MACHINE)
        assert done.returncode == 4
        (made,) = codespaces
        assert f"Codespace {made} was created, and is kept." in error_line(done)

    def test_ctrl_c_while_github_is_at_it_waits_for_the_name(self, own_account, codespaces):
        own_account.faults.set("create-accepted")
        own_account.faults.set("slow-start", seconds=9.0)
        with started(REPOSITORY, "--yes", *MACHINE) as process:
            wait_for(process, "(Queued)")
            process.send_signal(signal.SIGINT)
            out, rest = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 130
        (made,) = codespaces
        assert out == f"{made}\n"
        assert "Waiting for GitHub's answer" in rest
        assert f"Kept codespace {made}" in rest

    def test_ctrl_c_without_a_terminal_keeps_and_names_it(self, own_account, codespaces):
        own_account.faults.set("build-step", status="running")
        with started(REPOSITORY, "--yes", *MACHINE) as process:
            wait_for(process, "Running postCreateCommand")
            process.send_signal(signal.SIGINT)
            out, rest = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 130
        (made,) = codespaces
        assert out == f"{made}\n"
        assert f"Kept codespace {made}" in rest


class TestQuestions:
    def test_everything_is_asked_for(self, own_account, codespaces, add, tmp_path):
        paid = add("octo-org/ml", branches=("main", "experiment"), paid_by="octo-org")
        paid.files[".devcontainer/gpu/devcontainer.json"] = '{"name": "With a GPU"}'
        subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
        origin = "git@github.com:octo-org/ml.git"
        subprocess.run(["git", "remote", "add", "origin", origin], cwd=tmp_path, check=True)
        with asked("--no-wait", cwd=tmp_path) as terminal:
            terminal.wait_for("octo-org/ml (this folder)")
            terminal.type(ENTER)
            terminal.wait_for("your organisation octo-org pays for it")
            terminal.wait_for("Branch?")
            terminal.wait_for("experiment")
            terminal.type(DOWN + ENTER)
            terminal.wait_for("With a GPU (.devcontainer/gpu/devcontainer.json)")
            terminal.type(DOWN + ENTER)
            terminal.wait_for("4 cores, 16 GB RAM, 32 GB storage · $0.36 an hour")
            terminal.type(DOWN + ENTER)
            terminal.wait_for("octo-org/ml at experiment")
            terminal.wait_for("your organisation octo-org pays.")
            terminal.type(DOWN + ENTER)
            terminal.wait_for("Idle timeout: 30 minutes")
            terminal.type(ENTER)
            terminal.wait_for("5 to 240")
            terminal.type("300" + ENTER)
            terminal.wait_for("GitHub takes 5 to 240")
            terminal.type("\x7f\x7f\x7f60" + ENTER)
            terminal.wait_for("Idle timeout: 60 minutes")
            terminal.type(3 * DOWN + ENTER)
            terminal.wait_for("Display name?")
            terminal.type("Tea pot" + ENTER)
            terminal.wait_for("Display name: Tea pot")
            terminal.type("\x1b[A" + ENTER)
            terminal.wait_for("Tea pot")
            terminal.wait_for("Create it?")
            terminal.type(ENTER)
            terminal.wait_for("Next: codespace-kernels connect")
            assert terminal.wait() == 0
        (made,) = codespaces.values()
        assert (made.repository, made.ref, made.machine_type.name) == (paid, "experiment", "standardLinux32gb")
        assert made.devcontainer_path == ".devcontainer/gpu/devcontainer.json"
        assert (made.idle_timeout_minutes, made.display_name) == (60, "Tea pot")

    @pytest.mark.e2e
    def test_from_the_questions_to_a_kernel(self, own_account, codespaces, home):
        with asked(REPOSITORY, "--connect") as terminal:
            terminal.wait_for("octocat pays for it")
            terminal.wait_for("$1.44 an hour")
            terminal.type(ENTER)
            terminal.wait_for("octocat pays.")
            terminal.type(ENTER)
            terminal.wait_for("postCreateCommand succeeded.")
            terminal.wait_for("Where to find them")
            assert terminal.wait() == 0
        (made,) = codespaces.values()
        assert (made.machine_type.name, made.state.value) == ("basicLinux32gb", "Available")
        written = [spec.read_text() for spec in (home / "jupyter" / "kernels").glob("*/kernel.json")]
        assert any('"python3"' in text for text in written)
        assert all(made.name in text for text in written)

    def test_a_repository_is_searched_for(self, codespaces, add, tmp_path):
        add("acme/tools")
        with asked("--no-wait", *MACHINE, cwd=tmp_path) as terminal:
            terminal.wait_for("Another one")
            terminal.type(2 * DOWN + ENTER)
            terminal.wait_for("or words?")
            terminal.type("too" + ENTER)
            terminal.wait_for("acme/tools")
            terminal.type(ENTER)
            terminal.wait_for("acme/tools at main")
            terminal.wait_for("Create it?")
            terminal.type(2 * DOWN + ENTER)
            terminal.wait_for("Nothing was created.")
            assert terminal.wait() == 1
        assert not codespaces

    def test_a_long_list_is_filtered_by_typing(self, codespaces, add):
        add("acme/busy", branches=("main", *(f"topic-{number}" for number in range(20))))
        with asked("acme/busy", *MACHINE, "--no-wait") as terminal:
            terminal.wait_for("type to filter")
            terminal.type("PIC-13")
            terminal.wait_for("PIC-13")
            terminal.type(ENTER)
            terminal.wait_for("acme/busy at topic-13")
            terminal.wait_for("Create it?")
            terminal.type(ENTER)
            assert terminal.wait() == 0
        assert [made.ref for made in codespaces.values()] == ["topic-13"]

    @pytest.mark.parametrize(
        ("arguments", "question", "key"), [((REPOSITORY,), "Machine type?", CTRL_C), ((), "or words?", CTRL_D)]
    )
    def test_ctrl_c_in_a_question_creates_nothing(self, codespaces, tmp_path, arguments, question, key):
        with asked(*arguments, cwd=tmp_path) as terminal:
            if not arguments:
                terminal.wait_for("Another one")
                terminal.type(DOWN + ENTER)
            terminal.wait_for(question)
            terminal.type(key)
            terminal.wait_for("Nothing was created.")
            assert terminal.wait() == 130
            assert termios.tcgetattr(terminal.follower) == terminal.settings
        assert not codespaces

    @pytest.mark.parametrize(
        ("keys", "said", "left"), [(DOWN + ENTER, "Deleted codespace", 0), (CTRL_C, "Kept codespace", 1)]
    )
    def test_ctrl_c_while_it_waits(self, own_account, codespaces, keys, said, left):
        own_account.faults.set("slow-start", seconds=60.0)
        with asked(REPOSITORY, "--yes", *MACHINE) as terminal:
            terminal.wait_for("Starting codespace")
            terminal.process.send_signal(signal.SIGINT)
            terminal.wait_for("What becomes of the codespace?")
            terminal.wait_for("Delete")
            terminal.type(keys)
            terminal.wait_for(said)
            assert terminal.wait() == 130
        assert len(codespaces) == left

    def test_permissions_are_waited_for(self, own_account, codespaces):
        own_account.faults.set("permissions")
        with asked(*AT_ONCE) as terminal:
            terminal.wait_for("/octocat/hello-codespaces/codespaces/allow_permissions")
            terminal.wait_for("Create nothing")
            terminal.type(ENTER)
            terminal.wait_for("Waiting until the permissions are granted")
            page = f"{own_account.api_url}/{REPOSITORY}/codespaces/allow_permissions"
            assert httpx.post(page, trust_env=False).status_code == 200
            terminal.wait_for("Next: codespace-kernels connect")
            assert terminal.wait() == 0
        assert len(codespaces) == 1

    def test_permissions_are_declined(self, own_account, codespaces):
        own_account.faults.set("permissions")
        with asked(*AT_ONCE) as terminal:
            terminal.wait_for("Create nothing")
            terminal.type(DOWN + ENTER)
            terminal.wait_for("Next: codespace-kernels connect")
        assert len(codespaces) == 1

    def test_what_an_interrupted_run_created_is_offered(self, own_account, codespaces):
        own_account.faults.set("slow-start", seconds=60.0, count=1)
        run_cli("create", REPOSITORY, "--yes", *MACHINE, "--timeout", "0.5")
        (made,) = codespaces
        with asked(REPOSITORY, *MACHINE, "--no-wait") as terminal:
            terminal.wait_for("Create another one")
            terminal.type(ENTER)
            terminal.wait_for(f"connect {made}")
            assert terminal.wait() == 0
        assert list(codespaces) == [made]
