"""The real `gh`, unmodified, against the emulator: the judge of its truth. Here: commands that need REST only."""

from __future__ import annotations

import json

import httpx
import pytest

from codespace_kernels.emulator import ThreadedEmulator
from tests.terminals import Terminal

from .conftest import Gh, WaitFor

pytestmark = pytest.mark.e2e

HELLO = "octocat/hello-codespaces"


@pytest.fixture
def gh(emulator: ThreadedEmulator) -> Gh:
    return Gh(emulator.environment())


def test_list(gh: Gh, emulator: ThreadedEmulator, name: str):
    (line,) = gh.text("list").splitlines()
    assert line.split("\t")[:5] == [name, "hello codespaces", HELLO, "main", "Shutdown"]
    (found,) = json.loads(gh.text("list", "--json", "name,state,owner,repository,machineName,gitStatus,lastUsedAt"))
    assert found["name"] == name
    assert found["owner"] == "octocat"
    assert found["machineName"] == "basicLinux32gb"
    assert json.loads(gh.text("list", "-R", HELLO, "--json", "name")) == [{"name": name}]
    refused = gh("list", "-R", "octocat/other")
    assert refused.returncode == 1
    assert "404" in refused.stderr


def test_list_follows_all_pages(gh: Gh, emulator: ThreadedEmulator):
    with ThreadedEmulator(type(emulator.emulator)(codespaces=130)) as many:
        other = Gh(many.environment())
        assert len(json.loads(other.text("list", "--limit", "120", "--json", "name"))) == 120
        assert len(json.loads(other.text("list", "--limit", "1000", "--json", "name"))) == 130


def test_view(gh: Gh, name: str):
    fields = ["name", "state", "billableOwner", "machineDisplayName", "idleTimeoutMinutes", "retentionPeriodDays",
              "devcontainerPath"]  # fmt: skip
    viewed = json.loads(gh.text("view", "-c", name, "--json", ",".join(fields)))
    assert viewed["name"] == name
    assert viewed["state"] == "Shutdown"
    assert viewed["billableOwner"] == {"login": "octocat", "type": "User"}
    assert viewed["machineDisplayName"] == "2 cores, 8 GB RAM, 32 GB storage"
    assert viewed["idleTimeoutMinutes"] == 30
    assert viewed["retentionPeriodDays"] == 30
    assert viewed["devcontainerPath"] == ".devcontainer/devcontainer.json"


def test_create(gh: Gh, emulator: ThreadedEmulator):
    done = gh("create", "-R", HELLO, "-m", "standardLinux32gb", "-d", "My Lab", "--idle-timeout", "15m")
    assert done.returncode == 0, done.stderr
    created = emulator.account.codespaces[done.stdout.strip()]
    assert (created.display_name, created.machine_type.cpus, created.idle_timeout_minutes) == ("My Lab", 4, 15)
    assert created.devcontainer_path == ".devcontainer/devcontainer.json"
    assert "octocat" in done.stderr


def test_create_for_an_organisation_that_pays(gh: Gh, emulator: ThreadedEmulator):
    emulator.account.add_repository("octo-org/paid", paid_by="octo-org")
    done = gh("create", "-R", "octo-org/paid", "-m", "basicLinux32gb")
    assert done.returncode == 0
    assert "octo-org" in done.stderr


def test_create_that_is_accepted_only_is_waited_for(gh: Gh, emulator: ThreadedEmulator):
    emulator.faults.set("create-accepted")
    name = gh.text("create", "-R", HELLO, "-m", "basicLinux32gb").strip()
    assert emulator.account.codespaces[name].state == "Available"


@pytest.mark.parametrize(
    ("fault", "options", "words"),
    [
        ("permissions", {}, "allow_permissions"),
        ("server-error", {"on": "create", "status": 503}, "503"),
        ("unprocessable", {}, "machine is invalid"),
        ("rate-limit", {"on": "create"}, "rate limit"),
        ("sso", {"on": "create"}, "SAML"),
        ("unauthorized", {"on": "create"}, "Bad credentials"),
        ("payment", {"on": "create"}, "billing issue"),
        ("too-many", {}, "too many codespaces"),
        ("not-allowed", {}, "cannot create codespaces with that repository"),
        ("policy", {"machines": "premiumLinux"}, "premiumLinux"),
        ("policy", {"images": "ghcr.io/octo-org/"}, "not allowed by a policy of octocat"),
    ],
)
def test_create_that_is_refused(gh: Gh, emulator: ThreadedEmulator, fault: str, options: dict, words: str):
    emulator.faults.set(fault, **options)
    done = gh("create", "-R", HELLO, "-m", "basicLinux32gb")
    assert done.returncode == 1
    assert words in done.stderr
    assert len(emulator.account.codespaces) == 1


def test_create_with_an_unknown_machine_is_refused_by_gh(gh: Gh):
    done = gh("create", "-R", HELLO, "-m", "huge")
    assert done.returncode == 1
    assert "premiumLinux" in done.stderr


def test_default_permissions_need_no_grant(gh: Gh, emulator: ThreadedEmulator):
    emulator.faults.set("permissions")
    assert gh("create", "-R", HELLO, "-m", "basicLinux32gb", "--default-permissions").returncode == 0


def test_permissions_that_are_granted_meanwhile(gh: Gh, emulator: ThreadedEmulator):
    emulator.faults.set("permissions")
    environment = {name: text for name, text in gh.environment.items() if name != "GH_PROMPT_DISABLED"}
    command = [
        "env",
        "-u",
        "GH_PROMPT_DISABLED",
        gh.program,
        "codespace",
        "create",
        "-R",
        HELLO,
        "-m",
        "basicLinux32gb",
    ]
    with Terminal(command, **environment) as terminal:
        terminal.wait_for("without authorizing")
        httpx.post(f"{emulator.api_url}/{HELLO}/codespaces/allow_permissions", trust_env=False)
        terminal.type("\r")
        assert terminal.wait() == 0
    assert len(emulator.account.codespaces) == 2


def test_edit(gh: Gh, emulator: ThreadedEmulator, name: str):
    gh.text("edit", "-c", name, "-d", "renamed", "-m", "premiumLinux")
    codespace = emulator.account.codespaces[name]
    assert (codespace.display_name, codespace.machine_type.cpus) == ("renamed", 8)
    emulator.faults.set("pending-operation", name, reason="It is being moved.")
    done = gh("edit", "-c", name, "-d", "again")
    assert done.returncode == 1
    assert "It is being moved." in done.stderr
    assert codespace.display_name == "renamed"


def test_stop_and_delete(gh: Gh, emulator: ThreadedEmulator, api, name: str, wait_for: WaitFor):
    refused = gh("stop", "-c", name)
    assert refused.returncode == 1
    api.post(f"/user/codespaces/{name}/start")
    wait_for("Available")
    gh.text("stop", "-c", name)
    wait_for("Shutdown")
    gh.text("delete", "-c", name, "--force")
    assert gh.text("list") == ""
    assert gh("view", "-c", name).returncode == 1


def test_a_wrong_token_and_a_missing_scope(emulator: ThreadedEmulator):
    wrong = Gh({**emulator.environment(), "GH_ENTERPRISE_TOKEN": "ghp_wrong"})("list")
    assert wrong.returncode == 1
    assert "401" in wrong.stderr
    token = emulator.account.add_token(scopes=("repo",))
    poor = Gh({**emulator.environment(), "GH_ENTERPRISE_TOKEN": token.value})("list")
    assert poor.returncode == 1
    assert "gh auth refresh" in poor.stderr
    assert "codespace" in poor.stderr


@pytest.mark.parametrize(
    ("fault", "options", "words"),
    [("payment", {}, "402"), ("pending-operation", {"reason": "It is being moved."}, "It is being moved.")],
)
def test_a_start_that_is_refused(gh: Gh, emulator: ThreadedEmulator, name: str, fault: str, options: dict, words: str):
    emulator.faults.set(fault, name, **options)
    done = gh("ssh", "-c", name, "--", "true")
    assert done.returncode == 1
    assert words in done.stderr


def test_server_errors_of_get_and_start_are_tried_again(gh: Gh, emulator: ThreadedEmulator, name: str):
    emulator.faults.set("server-error", name, on="get-internal", count=3)
    assert json.loads(gh.text("view", "-c", name, "--json", "name")) == {"name": name}
    emulator.faults.set("server-error", name, on="get-internal", count=4)
    assert gh("view", "-c", name).returncode == 1
