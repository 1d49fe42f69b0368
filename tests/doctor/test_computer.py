"""Checks of this computer: front ends, kernelspecs, broker, folders, versions."""

import asyncio
import datetime
import json
import stat
import subprocess
import sys
from pathlib import Path

import jupyter_core.paths
import pytest
from packaging.requirements import Requirement

from codespace_kernels import __version__, kernelspecs, settings
from codespace_kernels.broker import process
from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.cli.broker_status import end_broker
from codespace_kernels.doctor import computer, frontends
from codespace_kernels.doctor.computer import unmet_requirement
from codespace_kernels.doctor.findings import Verdict
from codespace_kernels.lab import front_end
from codespace_kernels.providers.base import Workspace, WorkspaceState
from codespace_kernels.remote_kernel import RemoteKernelSpec
from codespace_kernels.target import Account, Target

from .conftest import said

OK, NOTE, FAIL, SKIPPED = Verdict.OK, Verdict.NOTE, Verdict.FAIL, Verdict.SKIPPED


@pytest.fixture
def written(account, codespace):
    """Folder of a kernelspec of the account's codespace."""
    return write_spec(account.api_url, codespace)


def write_spec(api_url, codespace) -> Path:
    target = Target(Account(api_url=api_url), codespace, "python3")
    workspace = Workspace(codespace, codespace, WorkspaceState.STOPPED, "Shutdown", repository="octocat/hello")
    remote = RemoteKernelSpec.from_json({"name": "python3", "display_name": "Python 3", "language": "python"})
    ((_, folder),) = kernelspecs.write(workspace, {target: remote}).items()
    return folder


def change(folder, **values):
    file = folder / "kernel.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


class TestKernelspecs:
    async def test_none(self, look):
        found = await look("kernelspecs", "kernelspecs-seen", "launcher")
        assert found["kernelspecs"].verdict is NOTE
        assert found["kernelspecs-seen"].verdict is OK
        assert found["launcher"].verdict is OK

    async def test_sound(self, look, written):
        found = await look("kernelspecs", "kernelspecs-seen", "launcher")
        assert {each: found[each].verdict for each in ("kernelspecs", "kernelspecs-seen", "launcher")} == {
            "kernelspecs": OK, "kernelspecs-seen": OK, "launcher": OK
        }  # fmt: skip
        assert "codespace-kernel runs" in said(found["launcher"])

    @pytest.mark.parametrize("text", ["{", "[]", "\udcff"])
    async def test_one_that_cannot_be_read(self, look, written, text):
        (written / "kernel.json").write_text(text, errors="surrogateescape")
        found = await look("kernelspecs")
        assert found["kernelspecs"].verdict is FAIL
        assert found["kernelspecs"].findings[0].subject == written.name

    async def test_one_without_a_file(self, look, written):
        (written / "kernel.json").unlink()
        assert "no kernel.json" in said((await look("kernelspecs"))["kernelspecs"])

    @pytest.mark.parametrize("values", [{"env": {}}, {"env": None}, {"metadata": {"codespace_kernels": None}}])
    async def test_one_that_lacks_something(self, look, written, values):
        change(written, **values)
        found = await look("kernelspecs")
        assert found["kernelspecs"].verdict is FAIL
        assert "connect" in said(found["kernelspecs"])

    @pytest.mark.parametrize(
        "values",
        [{"argv": ["codespace-kernel", "{connection_file}"]}, {"metadata": {"codespace_kernels": {"version": "0"}}}],
    )
    async def test_one_of_an_earlier_version(self, look, written, values):
        change(written, **values)
        assert (await look("kernelspecs"))["kernelspecs"].verdict is NOTE

    async def test_one_of_a_codespace_that_was_deleted(self, look, account, written):
        left = write_spec(account.api_url, "deleted-codespace")
        found = await look("kernelspecs")
        good, bad = found["kernelspecs"].findings
        assert (good.verdict, bad.verdict, bad.subject) == (OK, FAIL, left.name)
        assert "disconnect deleted-codespace" in bad.fix

    async def test_others_are_left_alone(self, look, account, written):
        folder = kernelspecs.kernels_dir() / "cs-lewis"
        folder.mkdir()
        (folder / "kernel.json").write_text("{}")
        write_spec("https://github.example/api/v3", "of-another-account")
        found = await look("kernelspecs")
        assert found["kernelspecs"].verdict is OK
        assert "2 in order" in said(found["kernelspecs"])

    async def test_one_that_jupyter_does_not_give(self, look, written, monkeypatch):
        change(written, metadata={"kernel_provisioner": {"provisioner_name": "nobodys"}, "codespace_kernels": {}})
        found = await look("kernelspecs-seen")
        assert found["kernelspecs-seen"].verdict is FAIL
        assert written.name in said(found["kernelspecs-seen"])


class TestLauncher:
    async def test_is_missing(self, look, written, tmp_path):
        change(written, env={**json.loads((written / "kernel.json").read_text())["env"], "PATH": str(tmp_path)})
        found = await look("launcher")
        assert found["launcher"].verdict is FAIL
        assert "not found" in said(found["launcher"])

    async def test_does_not_run(self, look, written, tmp_path):
        program = tmp_path / "codespace-kernel"
        program.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
        program.chmod(0o755)
        change(
            written, env={**json.loads((written / "kernel.json").read_text())["env"], "PATH": f"{tmp_path}:${{PATH}}"}
        )
        found = await look("launcher")
        assert found["launcher"].verdict is FAIL
        assert "broken" in said(found["launcher"])


class TestJupyters:
    async def test_here(self, look):
        found = await look("jupyter-here", "server-extensions")
        assert found["jupyter-here"].verdict is OK
        assert "JupyterLab 4" in said(found["jupyter-here"])
        assert found["server-extensions"].verdict is OK

    @pytest.mark.parametrize("name", ["jupyter-lab", "jupyter"])
    async def test_one_without_this_package(self, examiner, tmp_path, name):
        """A real environment in which Jupyter is, and this package is not."""
        python = environment_with(tmp_path, "jupyter_client", "jupyter_core", "jupyterlab")
        script = tmp_path / "bin" / name
        script.write_text(f"#!{python}\n")
        script.chmod(0o755)
        subject = examiner.subject(env={"PATH": str(tmp_path / "bin")})
        found = await examiner(subject, "jupyter-elsewhere")
        (finding,) = found["jupyter-elsewhere"].findings
        assert finding.verdict is FAIL
        assert f"{python} -m pip install codespace-kernels" in finding.fix
        # Further down in PATH it is worth a note only.
        subject = examiner.subject(env={"PATH": f"{Path(sys.executable).parent}:{tmp_path / 'bin'}"})
        assert (await examiner(subject, "jupyter-elsewhere"))["jupyter-elsewhere"].verdict is NOTE

    @pytest.mark.parametrize(
        ("seen", "verdict"),
        [
            ({"versions": {"jupyter_client": "8"}, "provisioner": True, "kernels": []}, FAIL),
            ({"versions": {}, "provisioner": False, "kernels": []}, FAIL),
        ],
    )
    def test_what_it_sees(self, seen, verdict):
        assert frontends.judged(seen, "/python", is_first=True).verdict is verdict
        assert frontends.judged({**seen, "kernels": []}, "/python", is_first=False).verdict is NOTE

    def test_a_script_with_a_long_path(self, tmp_path):
        script = tmp_path / "jupyter"
        script.write_text("#!/bin/sh\n'''exec' \"/a b/bin/python\" \"$0\" \"$@\"\n' '''\n")
        assert frontends.interpreter_of(script) == "/a b/bin/python"

    async def test_a_python_that_cannot_be_started(self, look, monkeypatch):
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        assert (await look("jupyter-here"))["jupyter-here"].verdict is FAIL

    async def test_a_server_extension_that_is_off(self, look, monkeypatch, tmp_path):
        config = {"ServerApp": {"jpserver_extensions": {"codespace_kernels.saved_notebooks": False}}}
        (tmp_path / "jupyter_server_config.json").write_text(json.dumps(config))
        monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(tmp_path))
        found = await look("server-extensions")
        assert found["server-extensions"].verdict is FAIL
        assert "is switched off" in said(found["server-extensions"])
        assert "jupyter server extension enable" in said(found["server-extensions"])

    async def test_a_server_extension_that_nobody_enabled(self, look, monkeypatch):
        # As where the package's files in etc/jupyter were not installed.
        monkeypatch.setattr(jupyter_core.paths, "ENV_CONFIG_PATH", [])
        found = await look("server-extensions")
        assert found["server-extensions"].verdict is FAIL
        assert "is not enabled" in said(found["server-extensions"])

    async def test_panel(self, look, monkeypatch, tmp_path):
        monkeypatch.setattr(front_end, "jupyter_path", lambda *_: [str(tmp_path)])
        (finding,) = (await look("panel"))["panel"].findings
        assert (finding.verdict, finding.fix) == (NOTE, front_end.advice())
        (tmp_path / front_end.NAME).mkdir()
        (tmp_path / front_end.NAME / "package.json").write_text("{}")
        assert (await look("panel"))["panel"].verdict is OK


def environment_with(folder, *modules) -> Path:
    """Make an environment that has some packages of this one, with what pip knows of them."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    library = next((folder / "lib").glob("python*")) / "site-packages"
    own = next(Path(p) for p in sys.path if p.endswith("site-packages"))
    for module in (*modules, "platformdirs", "traitlets"):
        for path in [own / module, *own.glob(f"{module}-*.dist-info")]:
            if path.exists():
                (library / path.name).symlink_to(path)
    return folder / "bin" / "python"


class TestVsCode:
    async def look(self, examiner, home, path=""):
        return (await examiner(examiner.subject(env={"HOME": str(home), "PATH": path}), "vscode"))["vscode"]

    async def test_absent(self, examiner, tmp_path):
        assert (await self.look(examiner, tmp_path)).verdict is NOTE

    async def test_with_the_extension(self, examiner, tmp_path, monkeypatch):
        monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / ".local" / "share" / "jupyter"))
        for version in ("2025.1.0", "2025.10.1-linux-x64", "keymap-1.1.2"):
            (tmp_path / ".vscode" / "extensions" / f"ms-toolsai.jupyter-{version}").mkdir(parents=True)
        found = await self.look(examiner, tmp_path)
        assert found.verdict is (OK if sys.platform == "linux" else NOTE)
        assert "2025.10.1 in ~/.vscode" in said(found)

    async def test_specs_where_old_ones_do_not_look(self, examiner, tmp_path):
        (tmp_path / ".vscode" / "extensions" / "ms-toolsai.jupyter-2024.1.0").mkdir(parents=True)
        assert (await self.look(examiner, tmp_path)).verdict is NOTE

    async def test_without_the_extension(self, examiner, tmp_path):
        program = tmp_path / "code"
        program.touch()
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        found = await self.look(examiner, tmp_path, str(tmp_path))
        assert found.verdict is NOTE
        assert "ms-toolsai.jupyter" in said(found)


class TestBroker:
    async def test_none_is_started(self, look):
        found = await look("broker", "leftovers")
        assert "not running" in said(found["broker"])
        assert found["leftovers"].verdict is OK
        assert not BrokerClient().running()

    async def test_one_that_runs(self, look, monkeypatch):
        BrokerClient().ensure()
        try:
            found = await look("broker", "folders", "log", "leftovers")
            assert f"version {__version__}" in said(found["broker"])
            assert {result.verdict for result in found.values()} == {OK}
            monkeypatch.setattr(computer, "__version__", "9.9")
            found = await look("broker")
            assert found["broker"].verdict is NOTE
            assert "codespace-kernels quit" in said(found["broker"])
        finally:
            end_broker()

    async def test_something_else_listens(self, look):
        async def answer(reader, writer):
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(answer, settings.runtime_dir() / "broker.sock")
        try:
            found = await look("broker")
        finally:
            server.close()
        assert found["broker"].verdict is FAIL
        assert "codespace-kernels quit" in said(found["broker"])

    async def test_what_a_killed_one_left(self, look):
        (settings.runtime_dir() / "broker.json").write_text("{}")
        found = await look("leftovers")
        assert found["leftovers"].verdict is NOTE
        assert "broker.json" in said(found["leftovers"])

    async def test_an_unexpected_error(self, look):
        (settings.state_dir() / "errors.log").write_text("Traceback")
        assert "errors.log" in said((await look("leftovers"))["leftovers"])

    async def test_errors_in_the_log(self, look):
        now = datetime.datetime.now()  # noqa: DTZ005  (logs have local time)
        lines = [
            f"{now - datetime.timedelta(days=3):%Y-%m-%d %H:%M:%S},000 ERROR broker: long ago",
            f"{now:%Y-%m-%d %H:%M:%S},000 INFO broker: fine",
            f"{now:%Y-%m-%d %H:%M:%S},000 ERROR broker: just now",
            "Traceback",
        ]
        process.log_path().write_text("\n".join(lines))
        found = await look("log")
        assert found["log"].verdict is NOTE
        assert ": 1 error in the last day" in said(found["log"])
        assert "just now" in said(found["log"])
        assert "long ago" not in said(found["log"])


class TestFolders:
    async def test_a_file_that_others_can_read(self, look):
        key = settings.data_dir() / "id_ed25519"
        key.touch(mode=0o600)
        assert (await look("folders"))["folders"].verdict is OK
        key.chmod(0o644)
        found = await look("folders")
        assert found["folders"].verdict is FAIL
        assert f"chmod 600 {key}" in said(found["folders"])

    async def test_one_that_cannot_be_made(self, look, home, monkeypatch):
        (home / "file").touch()
        with monkeypatch.context() as context:
            context.setenv("CODESPACE_KERNELS_HOME", str(home / "file" / "below"))
            found = await look("folders")
        assert found["folders"].verdict is FAIL
        assert "CODESPACE_KERNELS_HOME" in said(found["folders"])

    def test_one_that_is_full(self):
        full = Path("/proc/self")
        if not full.exists():
            pytest.skip("this system has no folder that nobody can write to")
        finding = computer.unwritable("state", full)
        assert finding is not None
        assert finding.verdict is FAIL


class TestVersions:
    async def test_sound(self, look):
        found = await look("versions", "openssh")
        assert {result.verdict for result in found.values()} == {OK}
        assert f"codespace-kernels {__version__}" in said(found["versions"])
        assert "paramiko" in said(found["versions"])

    @pytest.mark.parametrize(
        ("requirement", "words"),
        [("paramiko>=99", "needed is >=99"), ("no-such-package-of-ours", "missing"), ("paramiko>=1", "")],
    )
    def test_requirements(self, requirement, words):
        unmet = unmet_requirement(Requirement(requirement))
        assert words in unmet
        assert bool(unmet) is bool(words)

    async def test_a_package_that_is_too_old(self, look, monkeypatch):
        monkeypatch.setattr(computer, "version_of", lambda name: "0.1" if name == "httpx" else "99")
        found = await look("versions")
        assert found["versions"].verdict is FAIL
        assert "httpx is 0.1" in said(found["versions"])
        assert "pip install --upgrade" in said(found["versions"])

    async def test_no_openssh(self, examiner, tmp_path):
        found = await examiner(examiner.subject(env={"PATH": str(tmp_path)}), "openssh")
        assert found["openssh"].verdict is OK
