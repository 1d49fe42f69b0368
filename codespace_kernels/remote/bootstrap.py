"""The script that the client runs over SSH: `python -I bundle.zip …` finds or starts the server and becomes the link.

It says what it does on stdout (see `report`). In the end it is replaced by the splice, so that the first connection
needs no further round trip, and it leaves a shell script `attach` behind that later connections run at once.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import zipfile
from typing import Any, Dict, List, Optional, Sequence

from . import environments, examination, install, places, report, server

LOCK_SECONDS = 600.0
"""Another script may be installing; the client gives up earlier if it wants to."""


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run one command of the script."""
    arguments = _parse(argv)
    try:
        arguments.run(arguments)
    except places.PlaceError as error:
        report.result("failed", message=str(error))
    except install.InstallError as error:
        report.result("failed", message="The installation failed: %s" % error)


def _parse(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="codespace-kernels bootstrap")
    verbs = parser.add_subparsers(required=True, dest="verb")
    ensure = verbs.add_parser("ensure")
    ensure.set_defaults(run=_ensure)
    ensure.add_argument("--install", action="store_true")
    ensure.add_argument("--folder", default="")
    ensure.add_argument("--idle-timeout", type=float, default=600.0)
    ensure.add_argument("--keep", type=float, default=86400.0)
    ensure.add_argument("--timeout", type=float, default=60.0)
    examine = verbs.add_parser("examine")
    examine.set_defaults(run=_examine)
    examine.add_argument("--digest", default="")
    ipykernel = verbs.add_parser("install-ipykernel")
    ipykernel.set_defaults(run=_install_ipykernel)
    ipykernel.add_argument("python")
    return parser.parse_args(argv)


def _install_ipykernel(arguments: argparse.Namespace) -> None:
    install.install_ipykernel(arguments.python, environments.login_environment().get("PATH", ""))
    report.result("installed", python=arguments.python)


def _examine(arguments: argparse.Namespace) -> None:
    report.result("examined", **examination.examine(workspace_folder(""), arguments.digest))


def _ensure(arguments: argparse.Namespace) -> None:
    runtime = server.Runtime(places.runtime_folder())
    with places.Lock(runtime.lock, LOCK_SECONDS):
        state = server.running_server(runtime)
        offers: List[Dict[str, str]] = []
        if state is None:
            search = _Search(arguments)
            state = search.start(runtime)
            offers = search.offers()
    if state is None:
        return
    _become_link(state, offers)


class _Search:
    """Looks for an environment whose Jupyter server starts."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        report.progress("server", "Looking for Jupyter in the workspace")
        self._environment = environments.login_environment()
        self._path = self._environment.get("PATH", os.defpath)
        folder = workspace_folder(arguments.folder)
        self._found = environments.find_environments(folder, self._path)
        self._options = server.Options(folder, arguments.idle_timeout, arguments.keep, bundle_path(), arguments.timeout)
        self._failures: List[str] = []
        self._log = ""

    def offers(self) -> List[Dict[str, str]]:
        """Give the environments that would have a kernel if ipykernel were installed into them."""
        return [
            {"python": found.python, "prefix": found.prefix, "version": found.version}
            for found in self._found
            if not found.ipykernel
        ]

    def start(self, runtime: server.Runtime) -> Optional[Dict[str, Any]]:
        """Start a server and give its state; where that is impossible, report why and give None."""
        for found in self._found:
            if found.can_serve:
                state = self._try(found.python, runtime)
                if state is not None:
                    return state
        python = install.private_python()
        installed = ""
        if python is None and self._arguments.install:
            try:
                python = install.make_private_environment(self._path)
            except install.InstallError as error:
                installed = " Installing one failed: %s." % str(error).rstrip(".")
        state = self._try(python, runtime) if python is not None else None
        if state is None:
            self._report_failure(installed)
        return state

    def _try(self, python: str, runtime: server.Runtime) -> Optional[Dict[str, Any]]:
        report.progress("server", "Starting the Jupyter server of %s" % os.path.dirname(os.path.dirname(python)))
        try:
            return server.start_server(python, self._environment, runtime, self._options)
        except server.ServerError as error:
            self._failures.append("%s: %s" % (python, error))
            self._log = error.log
            return None

    def _report_failure(self, installed: str) -> None:
        if self._failures:
            text = "The Jupyter server in the workspace did not start (%s)." % "; ".join(self._failures)
            report.result("failed", message=text + installed, log=self._log)
        else:
            report.result("no_jupyter", message=self._describe() + installed, offers=self.offers())

    def _describe(self) -> str:
        seen = ", ".join("Python %s in %s" % (found.version, found.prefix) for found in self._found)
        old = ["%s in %s" % (found.jupyter_server, found.prefix) for found in self._found if found.jupyter_server]
        text = "The workspace has no jupyter_server 2.0 or newer (found: %s)." % (seen or "no Python 3.8 or newer")
        return text + (" Too old: jupyter_server %s." % ", ".join(old) if old else "")


def workspace_folder(wanted: str) -> str:
    """Give the folder to serve: the one that was asked for, the codespace's clone, or the home."""
    if wanted:
        return os.path.join(os.path.expanduser("~"), os.path.expanduser(wanted))
    named = os.environ.get("CODESPACE_VSCODE_FOLDER", "")
    if os.path.isdir(named):
        return named
    try:
        clones = [name for name in os.listdir("/workspaces") if not name.startswith(".")]
    except OSError:
        clones = []
    return os.path.join("/workspaces", clones[0]) if len(clones) == 1 else os.path.expanduser("~")


def bundle_path() -> str:
    """Give the zip or folder that this code was imported from."""
    here = os.path.abspath(__file__)
    return os.path.dirname(os.path.dirname(os.path.dirname(here)))


def _become_link(state: Dict[str, Any], offers: List[Dict[str, str]]) -> None:
    splice = _extract_splice()
    greeting = {"pid": state["pid"], "versions": state["versions"]}
    later = [sys.executable, "-I", "-S", splice, state["socket"], report.line(result="link", **greeting)]
    attach = os.path.join(os.path.dirname(splice), "attach")
    # `f`, where the client has set it, is what to run where nobody listens any more.
    places.write_private(attach, 'exec %s ${f:+"$f"}\n' % " ".join(map(shlex.quote, later)))
    sys.stdout.flush()
    now = [*later[:-1], report.line(result="link", offers=offers, **greeting)]
    os.execv(sys.executable, now)  # noqa: S606  (the splice takes this process's place: it has its stdin and stdout)


def _extract_splice() -> str:
    """Write the splice as a file of its own beside the bundle."""
    bundle = bundle_path()
    if os.path.isdir(bundle):
        return os.path.join(bundle, "codespace_kernels", "remote", "splice.py")
    target = os.path.join(os.path.dirname(bundle), "splice.py")
    with zipfile.ZipFile(bundle) as archive:
        places.write_private(target, archive.read("codespace_kernels/remote/splice.py").decode())
    return target
