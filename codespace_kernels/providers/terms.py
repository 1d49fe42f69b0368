"""On which terms a workspace would be made: who pays, for how many cores, and how much."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from codespace_kernels.providers.codespace_checks import check_chosen

if TYPE_CHECKING:
    from codespace_kernels.providers.base import CreateRequest, Provider
    from codespace_kernels.providers.choices import MachineOffer


class Terms(NamedTuple):
    """What a person should know before a workspace is made.

    Attributes:
        payer: Login, empty where the provider does not say.
        machine: The type that it will have; None where that is left to the provider.
    """

    payer: str
    machine: MachineOffer | None = None

    @property
    def dollars_per_hour(self) -> float | None:
        """Published price while it runs, in US dollars; None where unknown."""
        return self.machine.dollars_per_hour if self.machine is not None else None

    def __str__(self) -> str:
        """Give them for people: "16 cores; octocat pays, $1.44/h"."""
        cores = f"{self.machine.cpus} cores; " if self.machine is not None and self.machine.cpus else ""
        price = f", ${self.dollars_per_hour:.2f}/h" if self.dollars_per_hour is not None else ""
        return f"{cores}{self.payer or 'GitHub does not say who'} pays{price}"


async def terms_of(provider: Provider, request: CreateRequest) -> Terms:
    """Ask on which terms `create(request)` would make a workspace. Makes nothing.

    Raises:
        SettingsError: Something in the request is not to be had; says what is.
        GitHubError: There is no such repository, or nothing may be created of it.
    """
    choices = await provider.choices(request)
    check_chosen(request, choices)
    wanted = [machine for machine in choices.machines if request.machine in ("", machine.name)]
    # Of several the provider takes one that nobody can know.
    return Terms(choices.payer.login, wanted[0] if len(wanted) == 1 else None)
