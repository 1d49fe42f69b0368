"""Policies of whoever pays for an emulated codespace: what they forbid, and what they change.

The fault `policy` sets them. GitHub leaves forbidden machine types out of its lists and shortens times that are too
long; in which words it refuses an image is not known.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from codespace_kernels.emulator.refusals import ApiError

if TYPE_CHECKING:
    from codespace_kernels.emulator.faults import FaultBoard
    from codespace_kernels.emulator.models import MachineType, Repository, User

STANDARD_IMAGE = "mcr.microsoft.com/devcontainers/universal:2"
"""What a codespace is made from where its devcontainer names nothing else."""

_IMAGE = re.compile(r'"image"\s*:\s*"([^"]+)"')


@dataclasses.dataclass(frozen=True)
class Policy:
    """What one owner allows; zero and empty stand for everything.

    Attributes:
        owner: Login.
        machines: Names of machine types.
        idle_timeout: Minutes at most.
        retention: Minutes at most.
        images: Beginnings of the names of images.
    """

    owner: str
    machines: frozenset[str] = frozenset()
    idle_timeout: int = 0
    retention: int = 0
    images: tuple[str, ...] = ()

    def allowed(self, machines: tuple[MachineType, ...]) -> tuple[MachineType, ...]:
        """Give the machine types that may be chosen."""
        return tuple(machine for machine in machines if not self.machines or machine.name in self.machines)

    def idle_timeout_for(self, wanted: int) -> tuple[int, str | None]:
        """Give the idle timeout in minutes, and what is told of it where it is not the wanted one."""
        if not self.idle_timeout or wanted <= self.idle_timeout:
            return wanted, None
        return (
            self.idle_timeout,
            f"A policy of {self.owner} limits this codespace's idle timeout to {self.idle_timeout} minutes.",
        )

    def retention_for(self, wanted: int) -> int:
        """Give the retention period in minutes."""
        return min(wanted, self.retention) if self.retention else wanted

    def check_image(self, repository: Repository, devcontainer_path: str | None) -> None:
        """Refuse an image that is not on the list.

        Raises:
            ApiError: 422.
        """
        found = _IMAGE.search(repository.files.get(devcontainer_path or "", ""))
        image = found[1] if found else STANDARD_IMAGE
        if self.images and not image.startswith(self.images):
            message = f"The base image {image} is not allowed by a policy of {self.owner}."
            item = {"resource": "Codespace", "field": "devcontainer_path", "code": "custom", "message": message}
            raise ApiError(422, "Validation Failed", errors=[item])


def policy_of(faults: FaultBoard, owner: User) -> Policy:
    """Give the policy that holds for what this owner pays for."""
    fault = faults.get("policy", "")
    if fault is None or fault.options["owner"] not in ("", owner.login):
        return Policy(owner.login)
    texts = {name: tuple(filter(None, str(fault.options[name]).split(","))) for name in ("machines", "images")}
    numbers = {name: int(fault.options[name]) for name in ("idle_timeout", "retention")}
    return Policy(owner.login, frozenset(texts["machines"]), images=texts["images"], **numbers)
