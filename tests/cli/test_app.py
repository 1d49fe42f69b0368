import json
import subprocess
import sys

import pytest

from codespace_kernels import __version__
from codespace_kernels.cli import main
from codespace_kernels.cli.app import VERBS

from .conftest import COMMAND, error_line, run_cli


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_help_names_every_verb_and_exit_code(capsys):
    assert exit_code("--help") == 0
    shown = capsys.readouterr().out
    for word in [*VERBS, "130", "exit codes"]:
        assert word in shown


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb, capsys):
    assert exit_code(verb, "--help") == 0
    assert f"codespace-kernels {verb}" in capsys.readouterr().out


def test_version(capsys):
    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"codespace-kernels {__version__}\n"


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("list", "--nonsense"), ("create", "not-a-repository")])
def test_bad_usage(arguments, capsys):
    assert exit_code(*arguments) == 2
    assert capsys.readouterr().out == ""


def test_help_and_status_import_nothing_slow():
    code = (
        "import sys; from codespace_kernels.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    for arguments, slow in (
        (["--help"], {"rich", "httpx", "paramiko", "tornado", "jupyter_client", "asyncio"}),
        (["status"], {"rich", "httpx", "paramiko", "tornado", "jupyter_client"}),
    ):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0
        assert not slow & set(done.stderr.split())


def test_as_a_jupyter_subcommand():
    done = subprocess.run(
        [sys.executable, "-m", "jupyter", "codespaces", "status", "--json"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout)["broker"] is None


def raising(error):
    def run(options):
        raise error

    return run


def test_a_defect_is_one_line_and_its_traceback_is_kept(monkeypatch, capsys, home):
    monkeypatch.setattr("codespace_kernels.cli.status.run", raising(ValueError("of a kind")))
    assert main(["status"]) == 1
    log = home / "home" / "state" / "errors.log"
    shown = capsys.readouterr().err
    assert shown == f"Error: Unexpected ValueError: of a kind. This is a defect; where it happened stands in {log}.\n"
    assert "in run" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("arguments", [["--debug", "status"], ["status", "--debug"]])
def test_debug_shows_the_traceback(monkeypatch, capsys, arguments):
    monkeypatch.setattr("codespace_kernels.cli.status.run", raising(ValueError("of a kind")))
    assert main(arguments) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interrupted(monkeypatch, capsys):
    monkeypatch.setattr("codespace_kernels.cli.status.run", raising(KeyboardInterrupt()))
    assert main(["status"]) == 130
    assert capsys.readouterr().err == "Error: Interrupted.\n"


def test_reader_that_has_enough(signed_in):
    process = subprocess.Popen([*COMMAND, "list", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.wait(60) == 1
    assert process.stderr.read() == ""
    process.stderr.close()


def test_debug_shows_no_token(signed_in):
    done = run_cli("list", "--debug")
    assert done.returncode == 0
    assert "codespace_kernels" in done.stderr
    assert signed_in.token not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("option", "value"), [("--api-url", "http://example.com"), ("--api-url", "nonsense"), ("--host", "no host")]
)
def test_address_that_cannot_be_used(option, value):
    done = run_cli("list", option, value)
    assert done.returncode == 2
    assert value in error_line(done)
