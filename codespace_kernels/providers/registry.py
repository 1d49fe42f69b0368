"""The providers by name, imported only when one is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol, cast

from codespace_kernels.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codespace_kernels.providers.base import Provider
    from codespace_kernels.target import Account

PROVIDERS = {"github": ("codespace_kernels.providers.github", "CodespacesProvider")}
"""Module and class of each provider, by the name that stands in `Account.provider`."""


class _ProviderClass(Protocol):
    @classmethod
    def for_account(cls, account: Account, env: Mapping[str, str], token: str | None, transport: str) -> Provider: ...


def make_provider(
    account: Account, *, env: Mapping[str, str], token: str | None = None, transport: str = "auto"
) -> Provider:
    """Make the provider of an account; costs no request.

    Args:
        account: Whose workspaces.
        env: The environment of whoever asks, where a token may be found; not this process's own by itself.
        token: A token that was set by hand.
        transport: How a workspace is reached: `auto`, or a name that the provider knows (`tunnel`, `gh`).

    Raises:
        SettingsError: Provider, address or transport is not known.
    """
    if account.provider not in PROVIDERS:
        known = ", ".join(sorted(PROVIDERS))
        raise SettingsError(f"There is no provider {account.provider!r}. Known ones: {known}.")
    module, name = PROVIDERS[account.provider]
    provider_class = cast("_ProviderClass", getattr(importlib.import_module(module), name))
    return provider_class.for_account(account, env, token, transport)
