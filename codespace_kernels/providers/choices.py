"""What can be chosen for a workspace before it is made, in terms that a terminal and a dialog can show."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple


class Bounds(NamedTuple):
    """What a number may be.

    Attributes:
        lowest, highest: Both are allowed. A policy of the payer may allow less; that is told only when it strikes.
        default: What the provider takes unless the account's settings say otherwise.
    """

    lowest: int
    highest: int
    default: int


@dataclasses.dataclass(frozen=True)
class Payer:
    """Who would pay.

    Attributes:
        login: Empty where the provider does not say.
        kind: `User` or `Organization`; empty where the provider does not say.
    """

    login: str
    kind: str


@dataclasses.dataclass(frozen=True)
class MachineOffer:
    """A machine type that may be chosen.

    Attributes:
        name: For a `CreateRequest`: `basicLinux32gb`.
        title: For people: "2 cores, 8 GB RAM, 32 GB storage".
        cpus: Cores, 0 where unknown.
        memory_bytes, storage_bytes: Sizes, 0 where unknown.
        prebuild: Whether a prebuild makes it start faster: `ready`, `in_progress`, `none`, or empty where unknown.
        dollars_per_hour: Published price while it runs, in US dollars; None where unknown.
    """

    name: str
    title: str
    cpus: int
    memory_bytes: int
    storage_bytes: int
    prebuild: str
    dollars_per_hour: float | None


@dataclasses.dataclass(frozen=True)
class DevcontainerOffer:
    """A development container configuration of the repository.

    Attributes:
        path: For a `CreateRequest`.
        title: For people: the name in it, else its folder, else its path.
        is_default: Whether it is taken where none is named. Where none is the default, that is a standard image.
    """

    path: str
    title: str
    is_default: bool


@dataclasses.dataclass(frozen=True)
class Choices:
    """What can be chosen for a workspace of one repository, at one branch and with one devcontainer.

    Attributes:
        repository: `owner/name` as the provider writes it.
        default_branch: Empty where unknown.
        payer: Who would pay.
        branches: The default one first; of a repository with very many only the first ones.
        devcontainers: The default one first; those of the branch.
        machines: The weakest first; those for the devcontainer.
        locations: Regions, the one that would be taken first.
        idle_timeout_minutes: After how long without use it is stopped.
        retention_minutes: How long after that it is deleted.
        permissions_accepted: Whether the further permissions that the devcontainer asks for have been granted; true
            where it asks for none, None where the provider does not say.
        permissions_url: Page to grant them on; empty where the provider names it only when it refuses to create.
        unlisted: Which of `branches`, `devcontainers` and `machines` the provider did not give, or not in full.
        notes: What a person should know, sentences: policies that narrow the choice, lists that were not given, ….
    """

    repository: str
    default_branch: str
    payer: Payer
    branches: list[str]
    devcontainers: list[DevcontainerOffer]
    machines: list[MachineOffer]
    locations: list[str]
    idle_timeout_minutes: Bounds
    retention_minutes: Bounds
    permissions_accepted: bool | None = None
    permissions_url: str = ""
    unlisted: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Give a JSON object; bounds are objects of `lowest`, `highest` and `default`."""
        bounds = {name: getattr(self, name)._asdict() for name in ("idle_timeout_minutes", "retention_minutes")}
        return {**dataclasses.asdict(self), **bounds}
