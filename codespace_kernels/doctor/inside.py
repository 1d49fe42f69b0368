"""Checks of what is in a codespace: Python, Jupyter, our server extension, kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codespace_kernels import __version__
from codespace_kernels.bootstrap import make_bundle, parse_report, python_script
from codespace_kernels.doctor.findings import Check, Finding, Group, fail, note, ok
from codespace_kernels.errors import RemoteServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codespace_kernels.doctor.subject import Subject

PYTHON_FEATURE = "ghcr.io/devcontainers/features/python"

_SECONDS = 90.0
"""Every Python there is started once, on a machine that may have two cores and other work."""

_EXAMINE = """
umask 077
b=$(mktemp) || exit
cat >"$b"
(
{script}
) </dev/null
rm -f "$b"
"""
"""The code is there as long as it runs. Nothing else is written."""

_OLD_PYTHONS = "for p in python3 python; do command -v $p >/dev/null && $p -V 2>&1; done; true"


async def python(subject: Subject) -> Finding:
    """Run the examination there, by the Python that would be used for everything else."""
    assert subject.ssh is not None
    bundle = make_bundle()
    script = _EXAMINE.format(script=python_script(["examine", "--digest", bundle.digest]))
    done = await subject.ssh.run(script, stdin=bundle.data, timeout=_SECONDS)
    reports = [report for line in done.stdout.splitlines() if (report := parse_report(line))]
    outcome = reports[-1] if reports else {}
    if outcome.get("result") == "no_python":
        old = (await subject.ssh.run(_OLD_PYTHONS, timeout=15.0)).stdout.decode(errors="replace").split("\n")
        return no_python([version for version in old if version])
    if outcome.get("result") != "examined":
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise RemoteServerError(
            f"The script that looks around in the codespace gave no answer ({said[-1] if said else 'nothing said'}). "
            "Look at the login files of the user there, such as .profile and .bashrc."
        )
    subject.inside = outcome
    return ok(f"Python {outcome['python_version']} ({outcome['python']})")


def no_python(old: Sequence[str]) -> Finding:
    """Give the finding for a codespace without a Python that can be used.

    Args:
        old: What the Pythons there say of themselves.
    """
    found = f"too old: {', '.join(old)}" if old else "there is none"
    return fail(f"{found}; 3.8 or newer is needed", f"Add the feature {PYTHON_FEATURE} to its devcontainer.json.")


async def jupyter(subject: Subject) -> Finding:
    """Tell which jupyter_server would serve kernels."""
    assert subject.inside is not None
    return judged_jupyter(subject.inside)


def judged_jupyter(inside: dict[str, Any]) -> Finding:
    """Judge the environments of an examination (see `remote.examination`)."""
    found = {entry["python"]: entry for entry in inside["environments"]}
    serving = found.get(inside["serving"])
    if serving and serving["jupyter_server"]:
        return ok(f"jupyter_server {serving['jupyter_server']} in {serving['prefix']}, Python {serving['version']}")
    if inside["serving"]:
        return ok(f"in {inside['serving']}, an environment of our own")
    old = [f"{e['jupyter_server']} in {e['prefix']}" for e in found.values() if e["jupyter_server"]]
    said = f"only too old: jupyter_server {', '.join(old)}" if old else "there is no jupyter_server 2.0 or newer"
    return note(
        said,
        "The first connection makes an environment of its own for it, which takes a minute and the network there. "
        f"To have it in the image, add the feature {PYTHON_FEATURE} with installJupyterlab.",
    )


async def extension(subject: Subject) -> Finding:
    """Tell whether our server runs there, and of which version."""
    assert subject.inside is not None
    return judged_extension(subject.inside)


def judged_extension(inside: dict[str, Any]) -> Finding:
    """Judge the server of an examination."""
    server = inside["server"]
    if server is None:
        return ok(f"{'uploaded, ' if inside['uploaded'] else ''}not running: the next kernel starts it")
    version = server.get("software", "")
    shown = f"{version} runs, in jupyter_server {server.get('jupyter_server')}"
    if version != __version__:
        fix = "It goes on until its kernels end; `codespace-kernels rebuild` or a stop ends it at once."
        return note(f"{shown}; this is {__version__}", fix)
    return ok(shown)


async def kernels(subject: Subject) -> Sequence[Finding]:
    """List the kernels there."""
    assert subject.inside is not None
    return judged_kernels(subject.inside)


def judged_kernels(inside: dict[str, Any]) -> list[Finding]:
    """Judge the kernels of an examination."""
    if not inside["kernels"]:
        lacking = [entry["python"] for entry in inside["environments"] if not entry["ipykernel"]]
        if not inside["serving"]:
            return [note("there are none before the first connection, which brings one")]
        fix = f"Connect with --install-ipykernel {lacking[0]}." if lacking else "Install ipykernel there."
        return [fail("there are none", fix)]
    return [
        ok(", ".join([str(kernel["display_name"]), *map(" ".join, kernel["versions"].items())]), name)
        for name, kernel in sorted(inside["kernels"].items())
    ]


CHECKS = (
    Check("python", "Python", Group.CODESPACE, python, needs=("ssh",), seconds=_SECONDS + 20.0),
    Check("jupyter", "Jupyter", Group.CODESPACE, jupyter, needs=("python",)),
    Check("extension", "Our server there", Group.CODESPACE, extension, needs=("python",)),
    Check("kernels", "Kernels", Group.CODESPACE, kernels, needs=("python",)),
)
