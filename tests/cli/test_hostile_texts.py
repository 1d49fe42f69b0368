"""Names and error texts that a codespace chose are printed, and do nothing to the terminal."""

from __future__ import annotations

import io
import json
import logging

import pytest

from codespace_kernels.cli import app, terminal
from codespace_kernels.errors import SettingsError
from codespace_kernels.plain_text import HarmlessFormatter
from codespace_kernels.progress import ProgressEvent

from .conftest import run_cli
from .test_codespaces import in_terminal

EVIL = "a\x1b]0;owned\x07b\x9b2Jc\x1b[31md\u202ee\ud800f[bold]g[/bold]"
ACTING = set("\x07\x1b\x7f\x9b\u202e\ud800")


def is_harmless(text: str) -> bool:
    return not ACTING & set(text) and "a?" in text and "f[bold]g[/bold]" in text


@pytest.mark.parametrize("is_terminal", [True, False])
def test_results_and_remarks(monkeypatch, capsys, is_terminal):
    monkeypatch.setattr(terminal, "is_terminal", lambda: is_terminal)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    for show in (
        lambda: terminal.say(EVIL),
        lambda: terminal.print_table(["A"], [[EVIL]]),
        lambda: terminal.print_facts([("A", EVIL)]),
        lambda: terminal.ask(EVIL),
    ):
        show()
        said = capsys.readouterr()
        assert is_harmless("".join((said.out + said.err).split()).replace("\n", "")), said


def test_progress(capsys):
    with terminal.progress() as progress:
        progress(ProgressEvent("ssh", EVIL))
    assert is_harmless(capsys.readouterr().err)


@pytest.mark.parametrize("show", [terminal.print_json, terminal.print_json_line])
def test_json_keeps_the_text_and_acts_on_nothing(capsys, show):
    evil = EVIL.replace("\ud800", "").replace("\u202e", "")
    show({"title": evil})
    said = capsys.readouterr().out
    assert not ACTING & set(said)
    assert json.loads(said) == {"title": evil}


@pytest.mark.parametrize("debug", [[], ["--debug"]])
@pytest.mark.parametrize("error", [SettingsError, ValueError])
def test_errors(monkeypatch, capsys, tmp_path, error, debug):
    def fail(options):
        raise error(EVIL)

    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(tmp_path))
    monkeypatch.setattr("codespace_kernels.cli.list.run", fail)
    assert app.main(["list", *debug]) in (1, 2)
    assert is_harmless(capsys.readouterr().err)


def test_logs():
    error = ValueError(EVIL)
    record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "%s", (EVIL,), (ValueError, error, None))
    line = HarmlessFormatter("%(message)s").format(record)
    assert is_harmless(line)
    assert line.count("?]0;owned?") == 2


def test_a_codespace_s_own_name(own_account):
    (name,) = own_account.account.codespaces
    own_account.account.codespaces[name].display_name = EVIL.replace("\ud800", "")
    code, shown = in_terminal("view", name)
    assert code == 0
    assert "a?]0;owned?b" in shown
    assert not ACTING & set(shown)
    assert "\\u009b" in run_cli("view", name, "--json").stdout
