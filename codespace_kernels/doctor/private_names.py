"""What a report must not show of the person, the account, the network and this computer."""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codespace_kernels import kernelspecs
from codespace_kernels.doctor.network import proxy_hosts
from codespace_kernels.doctor.redaction import Redactor
from codespace_kernels.github.hosts import host_of, is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codespace_kernels.doctor.subject import Subject


def redactor_for(subject: Subject) -> Redactor:
    """Give what redacts everything that was learnt of a subject."""
    redactor = Redactor()
    if subject.token is not None:
        redactor.hide("secret", [subject.token.value])
    _hide_codespaces(redactor, subject)
    _hide_specs(redactor)
    redactor.hide("owner", [subject.login])
    redactor.hide("proxy", sorted(proxy_hosts(subject.env)))
    redactor.hide("issuer", sorted({r.issuer for r in subject.reaches if not r.is_public}))
    api_host = host_of(subject.api_url)
    if api_host not in ("github.com", "github.localhost") and not is_loopback(subject.api_url):
        redactor.hide("github-host", [api_host])
    _hide_computer(redactor)
    return redactor


def _hide_codespaces(redactor: Redactor, subject: Subject) -> None:
    described = [*(subject.codespaces or []), subject.internal or {}]
    for item in described:
        redactor.hide("codespace", [_text(item, "name"), _text(item, "display_name")])
        redactor.hide("environment", [_text(item, "environment_id")])
        redactor.hide_repository(_text(item.get("repository"), "full_name"))
        redactor.hide("owner", [_text(item.get(key), "login") for key in ("owner", "billable_owner")])
        redactor.hide("branch", _telling_branches(_text(item.get("git_status"), "ref")))
    if subject.name:
        # It may have been given as a repository or title, whether there is one or not.
        redactor.hide_repository(subject.name) if "/" in subject.name else redactor.hide("codespace", [subject.name])
    if subject.properties is not None:
        redactor.hide("tunnel", [subject.properties.tunnel_id])


def _telling_branches(ref: str) -> Iterator[str]:
    if ref not in ("main", "master", "develop", "dev", "trunk"):
        yield ref


def _hide_specs(redactor: Redactor) -> None:
    for spec in kernelspecs.installed().values():
        redactor.hide("codespace", [spec.target.workspace])
        redactor.hide_repository(spec.repository)
        redactor.hide("owner", [spec.target.account.login])


def _hide_computer(redactor: Redactor) -> None:
    home = Path.home()
    paths = (str(home), str(home.resolve()), home.as_posix(), os.environ.get("HOME", ""))
    # The home of some containers' users is the root of everything.
    redactor.hide("home", [path for path in dict.fromkeys(paths) if len(path) > 1])
    # Some containers have users without a name.
    with contextlib.suppress(KeyError, OSError):
        redactor.hide("user", [getpass.getuser()])
    redactor.hide("user", [home.name])
    for name in (platform.node(), socket.gethostname()):
        redactor.hide("host", [name, name.partition(".")[0]])


def _text(data: Any, key: str) -> str:
    value = data.get(key) if isinstance(data, dict) else None
    return value if isinstance(value, str) else ""
