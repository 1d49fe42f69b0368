"""The providers that the broker has at hand, one for each account and set of credentials."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from codespace_kernels.broker.protocol import Access
    from codespace_kernels.providers.base import Provider

    MakeProvider = Callable[[Access], Provider]


def make_from_registry(access: Access) -> Provider:
    """Make the provider that the registry knows under the account's name."""
    from codespace_kernels.providers.registry import make_provider

    return make_provider(access.account, env=access.environment, transport=access.transport)


class Accounts:
    """Providers by account and credentials, so that one broker serves several accounts side by side.

    Args:
        make: Makes a provider for an access.
    """

    def __init__(self, make: MakeProvider = make_from_registry) -> None:
        self._make = make
        self._providers: dict[str, Provider] = {}

    def provider(self, access: Access) -> Provider:
        """Give the provider for this access, the same one for equal credentials."""
        # A digest, so that no token is kept as a dictionary key that a debugger or a traceback would show.
        text = json.dumps(access.to_json(), sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        if key not in self._providers:
            self._providers[key] = self._make(access)
        return self._providers[key]

    async def close(self) -> None:
        """Close every provider."""
        providers, self._providers = self._providers, {}
        for provider in providers.values():
            with contextlib.suppress(Exception):
                await provider.close()
