"""The gRPC services of a machine, called through the tunnel by grpclib."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import GRPCError

from codespace_kernels import codespace_rpc
from codespace_kernels.emulator.machine import Machine

from .machine_fixtures import RPC_PORT, MachineRoom, eventually


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MachineRoom]:
    with MachineRoom(tmp_path_factory.mktemp("room")) as room:
        yield room


@pytest.fixture(scope="module")
def machine(room: MachineRoom) -> Machine:
    return room.machine(sshd="paramiko")


@pytest.fixture(autouse=True)
def no_faults(room: MachineRoom) -> Iterator[None]:
    yield
    room.faults.clear()


def call(
    room: MachineRoom,
    machine: Machine,
    method: codespace_rpc.Method,
    metadata: dict[str, str] = codespace_rpc.METADATA,
    **fields: Any,
) -> Any:
    async def send(port: int) -> Any:
        channel = Channel("127.0.0.1", port)
        try:
            unary = UnaryUnaryMethod(channel, method.path, method.request, method.response)
            return await unary(method.request(**fields), timeout=30, metadata=metadata)
        finally:
            channel.close()

    with room.tunnel(machine) as tunnel:
        tunnel.wait_for(RPC_PORT)
        with tunnel.listener(RPC_PORT) as port:
            return asyncio.run(send(port))


def new_key(folder: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    return (folder / "key.pub").read_text()


def test_activity_reaches_the_machines_owner(room: MachineRoom, machine: Machine) -> None:
    room.activities.clear()
    activities = ["connected", "input"]
    answer = call(room, machine, codespace_rpc.NOTIFY_ACTIVITY, ClientId="test", ClientActivities=activities)
    assert answer.Result
    assert room.activities == activities


def test_metadata_is_checked(room: MachineRoom, machine: Machine) -> None:
    with pytest.raises(GRPCError, match="UNAUTHENTICATED"):
        call(room, machine, codespace_rpc.NOTIFY_ACTIVITY, metadata={})


def test_an_unknown_method_is_refused(room: MachineRoom, machine: Machine) -> None:
    method = codespace_rpc.NOTIFY_ACTIVITY._replace(path="/Codespaces.Grpc.Nothing/Nothing")
    with pytest.raises(GRPCError):
        call(room, machine, method)


def test_start_of_the_ssh_server_installs_the_key_beside_others(
    room: MachineRoom, machine: Machine, tmp_path: Path
) -> None:
    keys = machine.spec.folder / "home" / ".ssh" / "authorized_keys"
    keys.touch(mode=0o600)
    keys.write_text("# mine\n")
    key = new_key(tmp_path)
    for _ in range(2):
        answer = call(room, machine, codespace_rpc.START_SSH_SERVER, UserPublicKey=key)
        assert answer.Result, answer.Message
        assert answer.ServerPort == "2222"
        assert answer.User == machine.inside.user
    assert keys.read_text() == f"# mine\n{key.strip()}\n"
    assert keys.stat().st_mode & 0o077 == 0


def test_an_empty_key_only_starts_the_ssh_server(room: MachineRoom, machine: Machine) -> None:
    assert call(room, machine, codespace_rpc.START_SSH_SERVER).Result


@pytest.mark.parametrize(
    "key", ["nonsense", "ssh-ed25519 AAAA\ncommand=x ssh-ed25519 BBBB", 'command="x" ssh-rsa AAAA']
)
def test_what_is_no_public_key_is_refused(room: MachineRoom, machine: Machine, key: str) -> None:
    answer = call(room, machine, codespace_rpc.START_SSH_SERVER, UserPublicKey=key)
    assert not answer.Result
    assert "public key" in answer.Message
    keys = machine.spec.folder / "home" / ".ssh" / "authorized_keys"
    assert not keys.exists() or key not in keys.read_text()


def test_an_image_without_sshd_says_what_to_add(room: MachineRoom, machine: Machine) -> None:
    room.faults.set("no-sshd", machine.spec.name)
    answer = call(room, machine, codespace_rpc.START_SSH_SERVER)
    assert not answer.Result
    assert "ghcr.io/devcontainers/features/sshd" in answer.Message
    other = room.machine("no-sshd", sshd="none")
    assert "features/sshd" in call(room, other, codespace_rpc.START_SSH_SERVER).Message


def test_jupyter_server_is_started_once_and_answers_through_the_tunnel(room: MachineRoom, machine: Machine) -> None:
    first, second = (call(room, machine, codespace_rpc.GET_RUNNING_SERVER) for _ in range(2))
    assert first.Result, first.Message
    assert first == second
    url, _, query = first.ServerUrl.partition("?")
    assert url == f"http://127.0.0.1:{first.Port}/"
    room.put_port(machine, int(first.Port))
    with room.tunnel(machine) as tunnel:
        tunnel.wait_for(int(first.Port))
        with tunnel.listener(int(first.Port)) as port:
            answer = httpx.get(f"http://127.0.0.1:{port}/api/kernelspecs?{query}", trust_env=False, timeout=60)
            specs = answer.raise_for_status().json()["kernelspecs"]
            refused = httpx.get(f"http://127.0.0.1:{port}/api/kernelspecs", trust_env=False, timeout=60)
    assert specs["python3"]["spec"]["argv"][0] == str(machine.inside.python.executable)
    assert refused.status_code == 403


def test_the_jupyter_token_stands_in_no_argv(room: MachineRoom, machine: Machine) -> None:
    answer = call(room, machine, codespace_rpc.GET_RUNNING_SERVER)
    token = answer.ServerUrl.rpartition("=")[2]
    assert len(token) > 20
    for process in psutil.process_iter(["cmdline"]):
        assert token not in " ".join(process.info["cmdline"] or ())


def test_a_jupyter_server_that_died_is_started_anew(room: MachineRoom, machine: Machine) -> None:
    first = call(room, machine, codespace_rpc.GET_RUNNING_SERVER)
    (server,) = {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == "LISTEN" and connection.laddr.port == int(first.Port)
    }
    psutil.Process(server).kill()
    second = eventually(
        lambda: (answer := call(room, machine, codespace_rpc.GET_RUNNING_SERVER)) != first and answer, "a new server"
    )
    assert second.Result


def test_an_image_without_jupyter_says_so(room: MachineRoom) -> None:
    room.faults.set("no-jupyter", "bare")
    machine = room.machine("bare")
    answer = call(room, machine, codespace_rpc.GET_RUNNING_SERVER)
    assert not answer.Result
    assert "JupyterLab" in answer.Message
    python = str(machine.inside.python.executable)
    for module in ("jupyter_server", "ipykernel"):
        assert subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode
    assert not list(machine.inside.python.scripts.glob("jupyter*"))
    room.faults.clear()
    eventually(lambda: machine.inside.python.has("ipykernel"), "the image's change")


def test_rebuild_ends_processes_and_loses_the_home_folder(room: MachineRoom, tmp_path: Path) -> None:
    machine = room.machine("rebuilt", sshd="paramiko")
    call(room, machine, codespace_rpc.START_SSH_SERVER, UserPublicKey=new_key(tmp_path))
    old_key = (machine.spec.folder / "etc" / "ssh" / "host_key").read_bytes()
    kept, lost = machine.inside.workspace / "work.txt", machine.inside.home / "lost.txt"
    for file in (kept, lost):
        file.write_text("x")
    assert call(room, machine, codespace_rpc.REBUILD_CONTAINER, Incremental=False).RebuildContainer
    eventually(lambda: not lost.exists() and machine.inside.python.has("ipykernel"), "the rebuild")
    assert call(room, machine, codespace_rpc.START_SSH_SERVER).Result
    assert kept.exists()
    assert not machine.inside.authorized_keys.exists()
    assert (machine.spec.folder / "etc" / "ssh" / "host_key").read_bytes() != old_key
