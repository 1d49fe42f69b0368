"""The panel's requests, to a real Jupyter server: what they answer, whom, and that no token is in it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import websockets

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.lab import front_end

from .file_keyring import FileKeyring

TOKEN = "s" * 20
WAIT = 60.0


def wait_until(condition, what: str):
    deadline = time.monotonic() + WAIT
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {WAIT} s for {what}"
        time.sleep(0.05)
    return value


@pytest.fixture(scope="module")
def account(emulator_options, tmp_path_factory):
    """An emulated account whose environment this process has."""
    from codespace_kernels.emulator.server import Emulator
    from codespace_kernels.emulator.threaded import ThreadedEmulator

    folder = tmp_path_factory.mktemp("r")
    options = {**emulator_options, "repositories": ("octocat/hello", "octocat/fresh")}
    with ThreadedEmulator(Emulator(**options)) as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODESPACE_KERNELS_HOME", str(folder / "h"))
        patch.setenv("JUPYTER_DATA_DIR", str(folder / "data"))
        for name, value in running.environment().items():
            patch.setenv(name, value)
        yield running
        if BrokerClient().running():
            BrokerClient().call("POST", "quit", {})


@contextlib.contextmanager
def jupyter_server(folder: Path, **env: str):
    """Run a Jupyter server; gives its address."""
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ServerApp.port=0",
               f"--ServerApp.root_dir={folder}"]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, "JUPYTER_TOKEN": TOKEN, **env}, stderr=log)
        info = Path(os.environ["JUPYTER_DATA_DIR"]) / "runtime" / f"jpserver-{process.pid}.json"
        wait_until(lambda: info.is_file() and info.read_text().endswith("}"), "the server's address")
        try:
            yield json.loads(info.read_text())["url"]
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def server(account, tmp_path_factory):
    """The address of a Jupyter server."""
    folder = tmp_path_factory.mktemp("server")
    with jupyter_server(folder) as address:
        yield address
    text = (folder / "log").read_text()
    assert front_end.advice() in text
    for name in ("GH_ENTERPRISE_TOKEN", "GITHUB_TOKEN"):
        assert os.environ.get(name, TOKEN * 2) not in text


@contextlib.contextmanager
def asking(server: str, account):
    """Make requests as the page does; gives a function that gives status and JSON. No answer may hold a token."""
    secret = account.environment()["GH_ENTERPRISE_TOKEN"]
    with httpx.Client(base_url=f"{server}codespace-kernels/", headers={"Authorization": f"token {TOKEN}"}) as client:

        def ask(path: str, body=None, method: str = ""):
            answer = client.request(method or ("GET" if body is None else "POST"), path, json=body, timeout=WAIT)
            assert secret not in answer.text
            return answer.status_code, answer.json()

        yield ask


@pytest.fixture
def ask(server, account):
    with asking(server, account) as ask:
        yield ask


def job_of(ask, job_id: str):
    (found,) = [one for one in ask("state")[1]["jobs"] if one["id"] == job_id]
    return found


def end_of(ask, job_id: str):
    """Wait for the end of a job."""

    def ended():
        job = job_of(ask, job_id)
        return job if job["state"] != "running" else None

    return wait_until(ended, "the end of a job")


@pytest.fixture
def run_job(ask):
    """Begin work and wait for its end."""

    def run(**body):
        status, job = ask("jobs", body)
        assert status == 202
        return end_of(ask, job["id"])

    return run


@pytest.mark.parametrize("path", ["state", "codespaces", "repositories", "kernels/12"])
def test_strangers_get_nothing(server, path):
    answer = httpx.get(f"{server}codespace-kernels/{path}")
    assert answer.status_code in {403, 405}
    assert "octocat" not in answer.text


def test_a_page_of_another_origin_can_change_nothing(server):
    with httpx.Client(base_url=server) as client:
        client.get(f"?token={TOKEN}", follow_redirects=True)
        assert client.get("codespace-kernels/state").status_code == 200
        forged = client.post("codespace-kernels/jobs", json={"kind": "connect", "workspace": "x"})
        assert forged.status_code == 403
        assert "_xsrf" in forged.text
        assert client.get("codespace-kernels/state").json()["jobs"] == []


def test_codespaces_have_prices(ask):
    status, answer = ask("codespaces")
    assert status == 200
    assert [one["repository"] for one in answer["codespaces"]] == ["octocat/hello"]
    assert answer["codespaces"][0]["dollars_per_hour"] == 0.18
    assert answer["prices"]["source"].startswith("https://")


def test_choices_and_suggestions(ask):
    status, answer = ask("choices", {"repository": "octocat/fresh", "ref": "", "machine": None})
    assert status == 200
    assert answer["payer"]["login"] == "octocat"
    assert answer["idle_timeout_minutes"]["highest"] == 240
    assert ask("repositories?text=fre") == (200, {"repositories": ["octocat/fresh"]})


@pytest.mark.parametrize(
    ("path", "body", "kind", "message"),
    [
        ("choices", {}, "SettingsError", "repository"),
        ("choices", [], "SettingsError", "JSON object"),
        ("choices", {"repository": "a/b", "token": "x"}, "SettingsError", "token"),
        ("choices", {"repository": "a/b", "idle_timeout_minutes": "x"}, "SettingsError", "idle_timeout_minutes"),
        ("choices", {"repository": "octocat/nowhere"}, "NotFoundError", "octocat/nowhere"),
        ("jobs", {"kind": "explode"}, "SettingsError", "explode"),
        ("jobs", {"kind": "connect"}, "SettingsError", "workspace"),
        ("kernelspecs", {"job": "0", "kernel": "python3"}, "SettingsError", "Begin it anew"),
    ],
)
def test_what_cannot_be_done_is_told(ask, path, body, kind, message):
    status, answer = ask(path, body)
    assert (status, answer["kind"]) == (409, kind)
    assert message in answer["message"]


def test_connect_choose_and_end(ask, run_job):
    name = ask("codespaces")[1]["codespaces"][0]["name"]
    job = run_job(kind="connect", workspace=name)
    assert job["state"] == "done", job
    assert "tunnel" in {step["stage"] for step in job["steps"]}
    assert "python3" in {kernel["name"] for kernel in job["result"]["kernels"]}
    status, spec = ask("kernelspecs", {"job": job["id"], "kernel": "python3"})
    assert (status, spec["name"]) == (201, "cs-octocat-hello-python3")
    written = Path(os.environ["JUPYTER_DATA_DIR"]) / "kernels" / spec["name"] / "kernel.json"
    assert json.loads(written.read_text())["display_name"] == spec["display_name"]
    assert ask("kernelspecs", {"job": job["id"], "kernel": "cobol"})[1]["kind"] == "KernelNotFoundError"
    assert ask("kernels/0000", method="DELETE")[1]["kind"] == "KernelNotFoundError"

    def connected():
        return [one["state"] for one in ask("state")[1]["status"]["workspaces"]] == ["connected"]

    wait_until(connected, "the state to say so")
    assert ask(f"jobs/{job['id']}", method="DELETE")[1]["jobs"] == []
    stopped = run_job(kind="stop", workspace=name)
    assert stopped["result"]["workspace"]["state"] in {"stopping", "stopped"}


def test_a_cancelled_creation_names_the_codespace_that_is_kept(ask, account, run_job):
    account.faults.set("create-accepted")
    account.faults.set("state", state="Queued")
    try:
        _, job = ask("jobs", {"kind": "create", "request": {"repository": "octocat/fresh"}})

        def step() -> str:
            steps = job_of(ask, job["id"])["steps"]
            return steps[-1]["stage"] if steps else ""

        wait_until(lambda: step() == "create", "GitHub to be asked")
        ask(f"jobs/{job['id']}", method="DELETE")
    finally:
        account.faults.clear()
    done = end_of(ask, job["id"])
    assert done["state"] == "cancelled"
    assert done["detail"]["workspace"] in {one["name"] for one in ask("codespaces")[1]["codespaces"]}


async def test_changes_come_as_events(server, ask):
    address = f"{server.replace('http', 'ws', 1)}api/events/subscribe"
    async with websockets.connect(address, additional_headers={"Authorization": f"token {TOKEN}"}) as events:
        _, before = ask("state")
        assert ask("jobs", {"kind": "login"})[0] == 202
        async with asyncio.timeout(WAIT):
            while True:
                event = json.loads(await events.recv())
                if event["schema_id"].endswith("/codespace-kernels/events/state/v1"):
                    jobs = event["document"]["jobs"]
                    if jobs and jobs[-1]["state"] == "failed":
                        break
    assert event["document"]["number"] > before["number"]
    # No app is configured in the tests: the way on is named.
    assert "codespace-kernels login" in jobs[-1]["error"]["message"]


def test_signing_in_from_the_page(account, tmp_path, monkeypatch):
    """Nobody is signed in; the page shows GitHub's code, and the token goes into the server's keyring only."""
    monkeypatch.delenv("GH_ENTERPRISE_TOKEN")
    keyring = tmp_path / "keyring.json"
    env = {
        "CODESPACE_KERNELS_CLIENT_ID": "Iv1.client",
        "CODESPACE_KERNELS_HOME": str(tmp_path / "h"),
        "PYTHON_KEYRING_BACKEND": "tests.lab.file_keyring.FileKeyring",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        FileKeyring.variable: str(keyring),
    }
    with jupyter_server(tmp_path, **env) as address, asking(address, account) as ask:
        assert ask("codespaces")[1]["kind"] == "NoTokenError"
        job = ask("jobs", {"kind": "login"})[1]["id"]
        detail = wait_until(lambda: job_of(ask, job)["detail"], "GitHub's code")
        answer = httpx.post(detail["verification_uri"], data={"user_code": detail["user_code"]}, trust_env=False)
        assert answer.status_code == 200
        done = end_of(ask, job)
        assert done["state"] == "done", done
        status, answer = ask("codespaces")
        assert status == 200
        assert "octocat/hello" in {one["repository"] for one in answer["codespaces"]}
        ((kept,),) = [json.loads(keyring.read_text()).values()]
        token = json.loads(kept)["access_token"]
        assert token not in json.dumps([done, answer])
    assert token not in (tmp_path / "log").read_text()
    assert not list((tmp_path / "h").rglob("*.json"))
