"""Kernelspecs that mean any codespace of a kind: what is found, what is made, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

from codespace_kernels import kernelspecs
from codespace_kernels.errors import NotFoundError, WorkspaceNotFoundError

from .clients import connected, execute, running_kernel, soon, text_of
from .conftest import broker_kernels, cli, run, wait_until
from .empty_account import REPOSITORY, empty_account

pytestmark = pytest.mark.e2e

MACHINE = "standardLinux32gb"
WHERE = "import os; print(os.environ['CODESPACE_NAME'])"
TERMS = f"Creating a codespace of {REPOSITORY} (4 cores; octocat pays, $0.36/h)"


@pytest.fixture(scope="module")
def account():
    with empty_account() as account:
        yield account


@pytest.fixture
def spec(account):
    """Write a recipe's kernelspec; all that comes of it is gone at the end."""

    def write(*options: str) -> str:
        wanted = ["--as-recipe", "--machine", MACHINE, "--kernel", "python3", "--language", "python"]
        done = cli("connect", REPOSITORY, *wanted, *options, "--json")
        assert done.returncode == 0
        return json.loads(done.stdout)["kernelspecs"][0]["name"]

    yield write
    wait_until(lambda: [kernel for kernel in broker_kernels() if not kernel["kept"]] == [], "the kernels to end")
    account.empty()
    shutil.rmtree(kernelspecs.kernels_dir())


ALLOWED = ("--allow-create", "--yes")


def test_nbconvert_creates_it_by_the_name_of_the_spec(account, spec, tmp_path):
    name = spec(*ALLOWED)
    assert name == "cs-octocat-ml-recipe-python3"
    path = tmp_path / "in.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(WHERE)]), path)
    command = ["jupyter", "nbconvert", "--to", "notebook", "--execute", f"--ExecutePreprocessor.kernel_name={name}"]
    done = run(*command, "--output", "out.ipynb", str(path))
    assert done.returncode == 0
    assert f"{TERMS} (step 1/5, next: preparing)" in done.stderr
    (made,) = account.states
    assert nbformat.read(tmp_path / "out.ipynb", 4).cells[0].outputs[0].text == f"{made}\n"


async def test_opening_makes_nothing_and_two_cells_at_once_make_one(account, spec):
    name = spec(*ALLOWED)
    async with running_kernel(name) as (_, one), running_kernel(name) as (_, two):
        assert (await execute(one, "x = 1", silent=True))[-1]["content"]["status"] == "ok"
        assert account.states == {}
        assert [(kernel["workspace"], kernel["recipe"]) for kernel in broker_kernels()] == [
            ("", f"{REPOSITORY} ({MACHINE})")
        ] * 2
        both = await asyncio.gather(*(execute(client, WHERE) for client in (one, two)))
        (made,) = account.states
        assert [text_of(messages) for messages in both] == [f"{made}\n"] * 2
        lines = [m["content"]["data"]["text/html"] for m in both[0] if m["msg_type"].endswith("display_data")]
        assert any(TERMS in line and "step 1/5, next: preparing" in line for line in lines)
        assert {kernel["workspace"] for kernel in broker_kernels()} == {made}
        # A third finds it at once.
        async with running_kernel(name) as (_, three):
            assert text_of(await execute(three, WHERE)) == f"{made}\n"
        assert list(account.states) == [made]


async def test_one_that_was_deleted_after_the_notebook_was_opened_is_replaced(account, spec):
    made = await asyncio.to_thread(account.create, MACHINE)
    await asyncio.to_thread(account.stop_one, made)
    async with running_kernel(spec(*ALLOWED)) as (_, client):
        assert [kernel["workspace"] for kernel in broker_kernels()] == [made]
        account.delete(made)
        shown = text_of(await execute(client, WHERE))
        assert shown != f"{made}\n"
        assert [shown] == [f"{name}\n" for name in account.states]


async def test_not_allowed_is_told_when_the_notebook_is_opened_and_when_a_cell_is_run(account, spec):
    name = spec()
    with pytest.raises(WorkspaceNotFoundError) as caught:
        await AsyncKernelManager(kernel_name=name).start_kernel()
    text = str(caught.value)
    assert f"There is no codespace of {REPOSITORY} ({MACHINE})" in text
    assert f"`codespace-kernels create {REPOSITORY} --machine {MACHINE}`" in text
    assert f"`codespace-kernels connect {REPOSITORY} --machine {MACHINE} --as-recipe --allow-create`" in text

    made = await asyncio.to_thread(account.create, MACHINE)
    await asyncio.to_thread(account.stop_one, made)
    async with running_kernel(name) as (_, client):
        account.delete(made)
        reply = (await execute(client, "1"))[-1]["content"]
        assert reply["ename"] == "WorkspaceNotFoundError"
        assert reply["evalue"] == text


async def test_a_machine_of_another_type_does_not_fit(account, spec):
    await asyncio.to_thread(account.create, "premiumLinux")
    with pytest.raises(WorkspaceNotFoundError):
        await AsyncKernelManager(kernel_name=spec()).start_kernel()


async def test_never_creates_nothing(account, spec):
    async with running_kernel(spec(*ALLOWED, "--wake", "never")) as (_, client):
        reply = (await execute(client, "1"))[-1]["content"]
        assert reply["ename"] == "WorkspaceNotCreatedError"
        assert f"`codespace-kernels create {REPOSITORY} --machine {MACHINE}`" in reply["evalue"]
    assert account.states == {}


async def test_on_open_starts_what_is_there_but_creates_nothing(account, spec):
    name = spec(*ALLOWED, "--wake", "on-open")
    async with running_kernel(name):
        pass
    assert account.states == {}
    made = await asyncio.to_thread(account.create, MACHINE)
    await asyncio.to_thread(account.stop_one, made)
    async with running_kernel(name):
        await soon(lambda: account.states == {made: "Available"}, "the codespace to start")


async def test_a_refusal_is_told_in_the_cell(account, spec):
    async with running_kernel(spec(*ALLOWED)) as (_, client):
        account.set("payment", on="create", count=1)
        reply = (await execute(client, "1"))[-1]["content"]
        assert reply["ename"] == "PaymentRequiredError"
        assert "spending limit" in reply["evalue"]
    assert account.states == {}


async def test_another_payer_than_was_agreed_to(account, spec):
    name = spec(*ALLOWED)
    path = kernelspecs.kernels_dir() / name / "kernel.json"
    path.write_text(
        path.read_text().replace('"CODESPACE_KERNELS_PAYER": "octocat"', '"CODESPACE_KERNELS_PAYER": "acme"')
    )
    async with running_kernel(name) as (_, client):
        reply = (await execute(client, "1"))[-1]["content"]
        assert "octocat would pay for it now" in reply["evalue"]
    assert account.states == {}


async def test_an_interrupted_wait_makes_no_second_one(account, spec):
    async with running_kernel(spec(*ALLOWED)) as (manager, client):
        account.set("slow-start", seconds=2)
        msg_id = client.execute(WHERE)
        while "Starting codespace" not in json.dumps((await client.get_iopub_msg(timeout=60))["content"]):
            pass
        await manager.interrupt_kernel()
        while (await client.get_shell_msg(timeout=60))["parent_header"]["msg_id"] != msg_id:
            pass
        shown = text_of(await execute(client, WHERE))
        assert [shown] == [f"{name}\n" for name in account.states]


async def test_a_kernel_that_was_kept_comes_back_from_where_it_is(account, spec, tmp_path):
    name = spec(*ALLOWED, "--on-close", "keep")
    env = {**os.environ, "JPY_SESSION_NAME": str(tmp_path / "a.ipynb")}
    manager = AsyncKernelManager(kernel_name=name)
    await manager.start_kernel(env=env)
    async with connected(manager) as client:
        shown = text_of(await execute(client, f"x = 42; {WHERE}"))
    # As a front end that died: nobody shuts the kernel down.
    manager.provisioner._let_go()
    await soon(lambda: [kernel["kept"] for kernel in broker_kernels()] == [True], "the kernel to be kept")
    # Another one fits by now, and is the better one.
    await asyncio.to_thread(account.create, MACHINE)
    async with running_kernel(name, env=env) as (_, client):
        assert text_of(await execute(client, f"print(x); {WHERE}")) == f"42\n{shown}"
    assert cli("kernels", "end", "--all").returncode == 0


def test_a_front_end_that_runs_argv_itself_is_told_in_its_log(account, spec, tmp_path):
    manager = AsyncKernelManager(kernel_name=spec())
    manager.connection_file = str(tmp_path / "kernel.json")
    manager.write_connection_file()
    kernel_spec = KernelSpecManager().get_kernel_spec(manager.kernel_name)
    command = [argument.format(connection_file=manager.connection_file) for argument in kernel_spec.argv]
    done = run(*command, env={**os.environ, **kernel_spec.env, "PATH": os.environ["PATH"]})
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith(f"WorkspaceNotFoundError: There is no codespace of {REPOSITORY} ")


def test_a_spec_learns_its_kernels_from_a_codespace_that_fits(account, spec):
    done = cli("connect", REPOSITORY, "--as-recipe")
    assert done.returncode == 3
    assert "--kernel python3 --language python" in done.stderr
    made = account.create()
    done = cli("connect", REPOSITORY, "--as-recipe", "--kernel", "python3", "--json")
    assert done.returncode == 0
    (written,) = json.loads(done.stdout)["kernelspecs"]
    assert written["display_name"] == f"Python 3 · {REPOSITORY} (any codespace)"
    # It is not the codespace's own, and does not go with it.
    assert cli("connect", made, "--kernel", "python3").returncode == 0
    assert cli("delete", made, "--yes").returncode == 0
    assert list(kernelspecs.installed()) == [written["name"]]


def test_what_cannot_be_written(account, spec):
    done = cli("connect", REPOSITORY, "--machine", MACHINE)
    assert (done.returncode, "--as-recipe" in done.stderr) == (2, True)
    for options in ([], ALLOWED):
        done = cli("connect", "octocat/nowhere", "--as-recipe", "--language", "python", "--kernel", "python3", *options)
        assert (done.returncode, "octocat/nowhere" in done.stderr) == (1, True)
    done = cli("connect", REPOSITORY, "--as-recipe", "--language", "python", "--kernel", "python3", "--allow-create")
    assert (done.returncode, "--yes" in done.stderr) == (2, True)
    assert re.search(r"octocat/ml: octocat pays", done.stderr)
    spec()  # so that there is a folder
    assert len(kernelspecs.installed()) == 1


async def test_an_unknown_repository(account, spec):
    name = spec()
    path = kernelspecs.kernels_dir() / name / "kernel.json"
    path.write_text(path.read_text().replace('REPOSITORY": "octocat/ml"', 'REPOSITORY": "octocat/nowhere"'))
    with pytest.raises(NotFoundError, match="octocat/nowhere"):
        await AsyncKernelManager(kernel_name=name).start_kernel()
