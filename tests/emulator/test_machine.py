"""The inside of a machine: folders, environment, Python, processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from codespace_kernels.emulator.inside import machine_marker
from codespace_kernels.emulator.inside_processes import MARKER, end_processes, marked_processes
from codespace_kernels.emulator.machine import Machine
from codespace_kernels.errors import EmulatorError

from .machine_fixtures import PATIENCE, RPC_PORT, MachineRoom, eventually


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MachineRoom]:
    with MachineRoom(tmp_path_factory.mktemp("room")) as room:
        yield room


@pytest.fixture(scope="module")
def machine(room: MachineRoom) -> Machine:
    return room.machine()


def run_inside(machine: Machine, *command: str) -> str:
    done = subprocess.run(
        command, env=machine.inside.environment(), cwd=machine.inside.home, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_working_folder_looks_like_a_clone(machine: Machine) -> None:
    folder = machine.spec.folder / "workspaces" / "hello"
    assert "octocat/hello" in (folder / "README.md").read_text()
    assert (folder / ".devcontainer" / "devcontainer.json").exists()


def test_secrets_of_the_outer_user_stay_out(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GH_TOKEN", "GITHUB_TOKEN", "GH_ENTERPRISE_TOKEN", "SSH_AUTH_SOCK", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret-value")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret-value@proxy:3128")
    monkeypatch.setenv("NO_PROXY", "localhost")
    env = machine.inside.environment()
    assert "secret-value" not in " ".join(env.values())
    assert env["NO_PROXY"] == "localhost"
    assert not {"GITHUB_API_URL", "VIRTUAL_ENV", "PYTHONPATH"} & set(env)


def test_kernelspec_is_what_ipykernels_installer_writes(machine: Machine, tmp_path: Path) -> None:
    run_inside(machine, "python", "-m", "ipykernel", "install", "--prefix", str(tmp_path))
    installed, own = (
        prefix / "share" / "jupyter" / "kernels" / "python3" for prefix in (tmp_path, machine.spec.folder / "python")
    )
    assert json.loads((own / "kernel.json").read_text()) == json.loads((installed / "kernel.json").read_text())
    assert {file.name for file in own.iterdir()} == {file.name for file in installed.iterdir()}


def test_jupyter_folders_are_inside_the_home(machine: Machine) -> None:
    paths = run_inside(machine, "jupyter", "--paths").replace(str(machine.spec.folder), "INSIDE")
    assert "INSIDE/home/.local/share/jupyter" in paths
    assert "INSIDE/python/share/jupyter" in paths
    assert str(Path(os.environ["HOME"])) not in paths


def test_the_python_inside_borrows_packages_and_keeps_its_own(machine: Machine) -> None:
    text = run_inside(machine, "python", "-c", "import sys, ipykernel; print(sys.prefix, sys.executable)")
    assert text == f"{machine.spec.folder}/python {machine.spec.folder}/python/bin/python"
    purelib = run_inside(machine, "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    assert Path(purelib).is_relative_to(machine.spec.folder)
    kernels = run_inside(machine, "jupyter", "kernelspec", "list")
    assert f"{machine.spec.folder}/python/share/jupyter/kernels/python3" in kernels


def test_the_current_python_can_be_used_itself(room: MachineRoom) -> None:
    machine = room.machine("plain", own_environment=False)
    assert run_inside(machine, "python", "-c", "import sys; print(sys.prefix)") == sys.prefix
    assert not (machine.spec.folder / "python").exists()


def test_a_python_that_cannot_be_used_is_told(room: MachineRoom) -> None:
    machine = room.machine("broken", boot=False, python="/nowhere/python")
    with pytest.raises(EmulatorError, match="/nowhere/python"):
        room.run(machine.boot())


def test_a_stopped_machine_keeps_its_files_and_packages(room: MachineRoom) -> None:
    machine = room.machine("keeps")
    purelib = run_inside(machine, "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    Path(purelib, "installed_inside.py").write_text("x = 1\n")
    (machine.inside.workspace / "README.md").write_text("changed")
    room.run(machine.shutdown())
    room.run(machine.boot())
    assert run_inside(machine, "python", "-c", "import installed_inside; print(installed_inside.x)") == "1"
    assert (machine.inside.workspace / "README.md").read_text() == "changed"


def test_booting_and_shutting_down_twice_is_no_error(room: MachineRoom) -> None:
    machine = room.machine("twice")
    room.run(machine.boot())
    with room.tunnel(machine) as tunnel:
        tunnel.wait_for(RPC_PORT)
    room.run(machine.shutdown())
    room.run(machine.shutdown())


def start(command: list[str], machine: Machine, **options: object) -> subprocess.Popen[str]:
    env = machine.inside.environment()
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, **options)


def test_shutdown_ends_every_process(room: MachineRoom) -> None:
    machine = room.machine("ends", sshd="paramiko")
    room.run(machine.start_ssh_server(""))
    room.run(machine.start_jupyter_server())
    # Leaves its parent, its session, and does not want to go.
    script = "trap '' TERM HUP; (setsid sleep 300 >/dev/null 2>&1 &); echo up; while :; do sleep 0.1; done"
    stubborn = start(["bash", "-c", script], machine, start_new_session=True)
    assert stubborn.stdout.readline() == "up\n"
    assert len(marked_processes(machine.inside.marker)) >= 4
    room.run(machine.shutdown())
    assert marked_processes(machine.inside.marker) == []
    assert stubborn.wait(PATIENCE) == -9
    stubborn.stdout.close()


def test_a_machine_ends_its_own_processes_only(room: MachineRoom, machine: Machine) -> None:
    other = room.machine("short-lived")
    with start(["sleep", "60"], machine) as mine:
        room.run(other.shutdown())
        assert mine.poll() is None
        mine.kill()


def test_processes_of_a_killed_emulator_can_be_ended_later(room: MachineRoom, tmp_path: Path) -> None:
    marker = machine_marker(tmp_path)
    script = (
        "import os, subprocess, sys\n"
        f"env = {{**os.environ, {MARKER!r}: {marker!r}}}\n"
        "child = subprocess.Popen(['sleep', '300'], env=env, start_new_session=True,\n"
        "                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    # For a moment after it took another program's place a process has no environment to look at.
    eventually(lambda: pid in {process.pid for process in marked_processes(marker)}, "the process's environment")
    assert end_processes(marker) == 1
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", "the process's end")
    assert end_processes(marker) == 0


def test_a_boot_ends_what_an_earlier_emulator_left(room: MachineRoom) -> None:
    machine = room.machine("again", boot=False)
    with start(["sleep", "300"], machine) as left:
        room.run(machine.boot())
        assert not marked_processes(machine.inside.marker)
        assert left.wait(PATIENCE) == -15


def test_machines_stand_side_by_side(room: MachineRoom, machine: Machine) -> None:
    other = room.machine("neighbour")
    assert machine.tunnel_properties()["tunnelId"] != other.tunnel_properties()["tunnelId"]
    assert machine.inside.hostname != other.inside.hostname
    with room.tunnel(machine) as one, room.tunnel(other) as two:
        for tunnel in (one, two):
            tunnel.wait_for(RPC_PORT)
            tunnel.open_port(RPC_PORT).close()
    keys = {room.call(each).json()["endpoints"][0]["hostPublicKeys"][0] for each in (machine, other)}
    assert len(keys) == 2


def test_signals_reach_what_they_are_meant_for(room: MachineRoom, machine: Machine) -> None:
    code = "import time; time.sleep(600)"
    env = machine.inside.environment()
    commands = {
        "server": ["-c", code, "-m", "jupyter_server"],
        "link": ["-c", code, "-m", "package.child", "--listener", "3"],
        "kernel": ["-c", code, "-f", "/somewhere/kernel-1.json"],
    }
    running = {
        which: psutil.Popen([sys.executable, *command], env=env, stdin=subprocess.DEVNULL)
        for which, command in commands.items()
    }

    def stopped() -> list[str]:
        return [which for which, process in running.items() if process.status() == psutil.STATUS_STOPPED]

    try:
        room.faults.set("signal", machine.spec.name, which="link", signal="STOP")
        eventually(lambda: stopped() == ["link"], "the process stopped")
        room.faults.clear("signal")
        eventually(lambda: not stopped(), "the process goes on")
        for which in ("server", "kernel"):
            room.faults.set("signal", machine.spec.name, which=which)
            assert running[which].wait(PATIENCE) == -9
        assert running["link"].is_running()
    finally:
        for process in running.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
            process.wait()
        room.faults.clear()
