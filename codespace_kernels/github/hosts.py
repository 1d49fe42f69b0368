"""Which GitHub host an API address belongs to, and the address that an environment means.

The rules are those of `gh` 2.103: a token belongs to a host name without port, `api.github.com` is `github.com`.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from codespace_kernels.errors import SettingsError
from codespace_kernels.target import DEFAULT_API_URL, Account

if TYPE_CHECKING:
    from collections.abc import Mapping


def host_of(api_url: str) -> str:
    """Give the host that a token belongs to: `github.com`, `SUB.ghe.com`, or the name of an enterprise server.

    Args:
        api_url: Base of a REST API, e.g. `https://api.github.com` or `https://HOST/api/v3`.

    Raises:
        SettingsError: It is no address, or one over which a token would travel readable by others.
    """
    name = _checked_hostname(api_url)
    if name in ("api.github.com", "api.github.localhost") or (name.startswith("api.") and name.endswith(".ghe.com")):
        return name.removeprefix("api.")
    return name


def web_url(api_url: str) -> str:
    """Give the address of a host's web pages, without a trailing slash; an emulator has them below its API.

    Raises:
        SettingsError: It is no address of an API.
    """
    host = host_of(api_url)
    if is_loopback(api_url):
        return api_url.rstrip("/")
    return f"https://{host}"


def is_loopback(api_url: str) -> bool:
    """Tell whether the address is on this machine, as an emulator's is."""
    name = (urlsplit(api_url).hostname or "").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_github_hosted(host: str) -> bool:
    """Tell whether `gh` takes the host's token from GH_TOKEN; other hosts have GH_ENTERPRISE_TOKEN."""
    return host in ("github.com", "github.localhost") or host.endswith(".ghe.com")


def account_from_environment(env: Mapping[str, str]) -> Account:
    """Give the account that an environment means: GITHUB_API_URL, else GH_HOST, else github.com.

    Args:
        env: The environment of whoever asks, which need not be this process's own.

    Raises:
        SettingsError: The variable holds no usable address.
    """
    if api_url := env.get("GITHUB_API_URL", "").strip():
        host_of(api_url)
        return Account(api_url=api_url)
    if host := env.get("GH_HOST", "").strip():
        return Account(api_url=_api_url_of(host))
    return Account()


def _api_url_of(host: str) -> str:
    host = host.lower()
    if host == "github.com":
        return DEFAULT_API_URL
    if host == "github.localhost":
        return "http://api.github.localhost"
    url = f"https://api.{host}" if host.endswith(".ghe.com") else f"https://{host}/api/v3"
    parts = urlsplit(url)
    if parts.hostname is None or "/" in host or "@" in host or " " in host:
        raise SettingsError(f"GH_HOST is {host!r}, which is no host name. Set it to a name such as github.com.")
    return url


def _checked_hostname(api_url: str) -> str:
    try:
        parts = urlsplit(api_url)
        name, _ = parts.hostname, parts.port
    except ValueError:
        name = None
    # The address is not quoted where it may hold a password or a token.
    shown = "That" if "@" in api_url or "?" in api_url else repr(api_url)
    if not name or parts.scheme not in ("http", "https") or shown == "That":
        raise SettingsError(
            f"{shown} is not the address of a GitHub API. It looks like {DEFAULT_API_URL} or "
            "https://HOST/api/v3; check GITHUB_API_URL."
        )
    if parts.scheme == "http" and not is_loopback(api_url):
        raise SettingsError(
            f"{api_url} is not encrypted, so the token would be readable on the way. Use its https address."
        )
    return name.lower()
