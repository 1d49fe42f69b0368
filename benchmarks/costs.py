"""What this package costs in a front end: whole programs with it and without, in turns; and a launcher's start."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import nbformat
from jupyter_client.kernelspec import KernelSpecManager

from benchmarks.programs import WAIT, BenchmarkError, running, wait_for_port
from benchmarks.scene import Scene
from benchmarks.turns import Samples, log
from tests.launchers import PORT_NAMES, connection_file, launched
from tests.ports import free_port

EXTENSIONS = ("codespace_kernels.saved_notebooks", "codespace_kernels.lab")
SPECS = 50
ANSWERS = 20


def front_end_costs(scene: Scene, rounds: int) -> dict[str, Samples]:
    """Give milliseconds of whole programs, with this package and without.

    Args:
        scene: What runs.
        rounds: In which all take their turns.
    """
    tasks = _tasks(scene)
    cost: dict[str, Samples] = {}
    for what, which in tasks:
        cost.setdefault(what, {})[which] = []
    for number in range(rounds):
        log(f"cost in a front end, round {number + 1} of {rounds}")
        for (what, which), measure in random.sample(list(tasks.items()), len(tasks)):
            cost[what][which].append(measure())
    return {**cost, f"`GET /api/kernelspecs`, {SPECS} specs": _kernelspec_answers(scene)}


def _tasks(scene: Scene) -> dict[tuple[str, str], Callable[[], float]]:
    python = sys.executable
    jupyter = str(Path(python).parent / "jupyter")
    notebook = scene.home / "one.ipynb"
    notebook.write_text(notebook_text("print(1)"))
    here, ours = _specs(scene, "one-local", "python3", 1), _specs(scene, "one-ours", scene.spec, 1)

    def nbconvert(kernel: str) -> Callable[[], float]:
        command = [python, "-m", "nbconvert", "--to", "notebook", "--execute", "--stdout", str(notebook)]
        return lambda: _timed([*command, f"--ExecutePreprocessor.kernel_name={kernel}"])

    def imports(what: str, python: str = python) -> Callable[[], float]:
        return lambda: _timed([python, "-c", f"import {what}"])

    def listing(folder: Path) -> Callable[[], float]:
        # A data folder with that spec only.
        return lambda: _timed([jupyter, "kernelspec", "list"], JUPYTER_DATA_DIR=str(folder))

    tasks = {
        ("import", "jupyter_client alone"): imports("jupyter_client.manager"),
        ("import", "with our provisioner"): imports("jupyter_client.manager, codespace_kernels.provisioner"),
        ("`jupyter kernelspec list`", "one more local spec"): listing(here),
        ("`jupyter kernelspec list`", "one of ours"): listing(ours),
        ("JupyterLab, start to first answer", "without our extensions"): lambda: _lab(scene, enabled=False),
        ("JupyterLab, start to first answer", "with our extensions"): lambda: _lab(scene, enabled=True),
        ("nbconvert, one cell, whole process", "local"): nbconvert("python3"),
        ("nbconvert, one cell, whole process", "ours, tunnel"): nbconvert(scene.spec),
        ("launcher to bound ports, warm broker", "codespace-kernel"): lambda: launch(scene),
    }
    if scene.peers is not None:
        theirs = str(scene.peers / "bin" / "python")
        tasks["import, peers' environment", "jupyter_client alone"] = imports("jupyter_client.manager", theirs)
        tasks["import, peers' environment", "with sshpyk's provisioner"] = imports(
            "jupyter_client.manager, sshpyk.provisioning", theirs
        )
    return tasks


def notebook_text(*cells: str) -> str:
    """Give the text of a notebook with some cells that were not executed."""
    form: Any = nbformat.v4
    write: Any = nbformat.writes
    return str(write(form.new_notebook(cells=[form.new_code_cell(cell) for cell in cells])))


def _timed(command: list[str], **variables: str) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, env={**os.environ, **variables})
    took = (time.perf_counter() - began) * 1000
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command[:4])}: {done.stderr.decode(errors='replace')[-2000:]}")
    return took


def _specs(scene: Scene, folder_name: str, spec: str, count: int) -> Path:
    """Make a data folder with copies of a spec; give it."""
    folder = scene.home / folder_name
    source = KernelSpecManager().get_kernel_spec(spec).resource_dir
    for number in range(count):
        shutil.copytree(source, folder / "kernels" / f"copy{number}", dirs_exist_ok=True)
    return folder


def _lab(scene: Scene, *, enabled: bool) -> float:
    """Start JupyterLab; give milliseconds until it answers."""
    port = free_port()
    settings = scene.home / "lab-settings.json"
    chosen = dict.fromkeys(EXTENSIONS, enabled)
    settings.write_text(json.dumps({"ServerApp": {"jpserver_extensions": {"jupyterlab": True, **chosen}}}))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--config={settings}", f"--ServerApp.root_dir={scene.home}"]
    began = time.perf_counter()
    with running(command, scene.log), httpx.Client(trust_env=False) as http:
        wait_for_answer(http, f"http://127.0.0.1:{port}/api")
        return (time.perf_counter() - began) * 1000


def wait_for_answer(http: httpx.Client, url: str) -> None:
    """Wait until there is an HTTP answer at an address.

    Raises:
        BenchmarkError: There is none, or one that is an error.
    """
    ends = time.monotonic() + WAIT
    while True:
        try:
            answer = http.get(url, timeout=WAIT)
        except httpx.TransportError as error:
            if time.monotonic() > ends:
                raise BenchmarkError(f"{url}: {error}") from None
            time.sleep(0.005)
            continue
        if answer.is_error:
            raise BenchmarkError(f"{url}: status {answer.status_code}")
        return


def launch(scene: Scene) -> float:
    """Run a spec's argv as VS Code does; give milliseconds until the ports are bound."""
    file, info = connection_file(scene.home)
    began = time.perf_counter()
    with launched(scene.spec, file, scene.log):
        for name in PORT_NAMES:
            wait_for_port(info[name])
        return (time.perf_counter() - began) * 1000


def _kernelspec_answers(scene: Scene) -> Samples:
    """Give milliseconds of the answers of two Jupyter servers in turns: with many local specs, with as many of ours."""
    answers: Samples = {}
    ports = {"local": free_port(), "ours": free_port()}
    folders = {
        "local": _specs(scene, "many-local", "python3", SPECS),
        "ours": _specs(scene, "many-ours", scene.spec, SPECS),
    }

    def server(which: str) -> Any:
        command = [sys.executable, "-m", "jupyter_server", f"--port={ports[which]}", "--no-browser", "--allow-root"]
        command += ["--IdentityProvider.token=", "--ServerApp.port_retries=0"]
        return running(command, scene.log, {**os.environ, "JUPYTER_PATH": str(folders[which])})

    with server("local"), server("ours"), httpx.Client(trust_env=False) as http:
        for which, port in ports.items():
            wait_for_answer(http, f"http://127.0.0.1:{port}/api")
            answers[which] = []
        for _ in range(ANSWERS):
            for which, port in ports.items():
                began = time.perf_counter()
                answer = http.get(f"http://127.0.0.1:{port}/api/kernelspecs", timeout=WAIT)
                answers[which].append((time.perf_counter() - began) * 1000)
                if len(answer.json()["kernelspecs"]) < SPECS:
                    raise BenchmarkError(f"a server with {SPECS} specs names {len(answer.json()['kernelspecs'])}")
    return answers
