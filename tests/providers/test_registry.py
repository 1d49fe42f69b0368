from __future__ import annotations

import subprocess
import sys

import pytest

from codespace_kernels.errors import NoTokenError, SettingsError
from codespace_kernels.providers.registry import PROVIDERS, make_provider
from codespace_kernels.target import Account


async def test_an_unknown_provider_names_the_known_ones():
    with pytest.raises(SettingsError, match=r"'gitlab'.*github"):
        make_provider(Account(provider="gitlab"), env={})


async def test_an_unknown_transport_names_the_known_ones():
    with pytest.raises(SettingsError, match=r"'pigeon'.*auto, tunnel, gh"):
        make_provider(Account(), env={}, transport="pigeon")


async def test_an_address_that_cannot_be_used():
    with pytest.raises(SettingsError):
        make_provider(Account(api_url="ftp://x"), env={})


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_provider_without_a_token_says_so(name):
    provider = make_provider(Account(provider=name), env={"PATH": ""})
    with pytest.raises(NoTokenError):
        await provider.list()
    await provider.close()


async def test_the_explicit_token_reaches_the_account(emulator):
    provider = make_provider(Account(api_url=emulator.api_url), env={}, token=emulator.token)
    assert len(await provider.list()) == 1
    await provider.close()


def test_listing_does_not_load_ssh():
    """A picker that only lists must not pay for paramiko and gRPC."""
    code = (
        "import sys; from codespace_kernels.providers.registry import make_provider;"
        "from codespace_kernels.target import Account; make_provider(Account(), env={});"
        "print([m for m in ('paramiko', 'grpclib', 'keyring') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert output.stdout.strip() == "[]"
