"""What a codespace has to be like: what a kernelspec names that means any codespace of a kind, in place of one.

A recipe stands in the spec's `env` (see `target`). It comes down to a workspace of the account that is like that; the
broker makes one only where a person allowed it for this spec, and only at the cost of whom that person was told.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from typing import TYPE_CHECKING, Any, Self

from codespace_kernels.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codespace_kernels.providers.base import CreateRequest

ALLOWED = "allowed"
"""Value of `CREATE` in a spec's environment."""

_REPOSITORY = re.compile(r"[^/\s]+/[^/\s]+")
_COMMIT = re.compile(r"[0-9a-fA-F]{40}")


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
    """A kind of workspace. Two recipes are equal where the same workspaces fit them.

    Attributes:
        repository: `owner/name`.
        branch: That is checked out; empty for the repository's default branch.
        devcontainer_path: Path of the `devcontainer.json`; empty for the default one.
        machine: Name of a machine type; empty for any.
        location: Region of a new one; empty for the provider's choice.
        idle_timeout_minutes: Of a new one; None for the account's.
        may_create: Whether a new one may be made where none fits.
        payer: Login of who pays for a new one, as the person who allowed it was told; empty where nobody was named.

    Raises:
        SettingsError: The repository is not of the form `owner/name`, or the branch is a commit: a workspace does not
            say from which one it was made, so that none would ever be found again.
    """

    repository: str
    branch: str = ""
    devcontainer_path: str = ""
    machine: str = ""
    location: str = ""
    idle_timeout_minutes: int | None = None
    may_create: bool = False
    payer: str = ""

    def __post_init__(self) -> None:
        """Check what a person may have written by hand."""
        if not _REPOSITORY.fullmatch(self.repository):
            raise SettingsError(f"{self.repository!r} is no repository. Write it as OWNER/REPO.")
        if _COMMIT.fullmatch(self.branch):
            raise SettingsError(f"{self.branch} is a commit; name a branch, by which codespaces can be found again.")

    @property
    def key(self) -> str:
        """What tells it from other recipes, in one line."""
        # GitHub compares the names of repositories without case, and those of branches and files with it.
        return "|".join((self.repository.lower(), self.branch, self.devcontainer_path, self.machine))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def details(self) -> str:
        """What it names besides the repository, for people; empty where that is nothing."""
        return ", ".join(part for part in (self.branch, self.devcontainer_path, self.machine) if part)

    @property
    def title(self) -> str:
        """Its name for people: "octocat/ml (main, largePremiumLinux)"."""
        return f"{self.repository} ({self.details})" if self.details else self.repository

    def request(self) -> CreateRequest:
        """Give what a provider is asked to find or make."""
        # Imported here: launchers, which ask for nothing, start a tenth faster without it.
        from codespace_kernels.providers.base import CreateRequest

        return CreateRequest(
            self.repository,
            ref=self.branch,
            devcontainer_path=self.devcontainer_path,
            machine=self.machine,
            location=self.location,
            idle_timeout_minutes=self.idle_timeout_minutes,
        )

    @property
    def create_command(self) -> str:
        """The command with which a person makes such a workspace."""
        return f"codespace-kernels create {self._arguments()}"

    @property
    def allow_command(self) -> str:
        """The command with which a person allows a spec to make such workspaces."""
        return f"codespace-kernels connect {self._arguments()} --as-recipe --allow-create"

    def _arguments(self) -> str:
        options = {
            "--branch": self.branch,
            "--devcontainer-path": self.devcontainer_path,
            "--machine": self.machine,
            "--location": self.location,
            "--idle-timeout": str(self.idle_timeout_minutes or ""),
        }
        named = [word for option, value in options.items() if value for word in (option, value)]
        return shlex.join([self.repository, *named])

    def to_env(self) -> dict[str, str]:
        """Give the variables of a spec's `env`, without their prefix; empty ones are to be left out."""
        return {
            "REPOSITORY": self.repository,
            "BRANCH": self.branch,
            "DEVCONTAINER": self.devcontainer_path,
            "MACHINE": self.machine,
            "LOCATION": self.location,
            "IDLE_TIMEOUT": str(self.idle_timeout_minutes or ""),
            "CREATE": ALLOWED if self.may_create else "",
            "PAYER": self.payer if self.may_create else "",
        }

    @classmethod
    def from_env(cls, values: Mapping[str, str]) -> Self | None:
        """Read a recipe from variables without their prefix; None where no repository is named.

        Raises:
            SettingsError: A value cannot be used.
        """
        if not values.get("REPOSITORY"):
            return None
        create = values.get("CREATE", "")
        if create not in {"", ALLOWED}:
            raise SettingsError(f"CODESPACE_KERNELS_CREATE is {create!r}; it can be {ALLOWED}, or be left out.")
        return cls(
            values["REPOSITORY"],
            values.get("BRANCH", ""),
            values.get("DEVCONTAINER", ""),
            values.get("MACHINE", ""),
            values.get("LOCATION", ""),
            _minutes(values.get("IDLE_TIMEOUT", "")),
            create == ALLOWED,
            values.get("PAYER", ""),
        )

    def to_json(self) -> dict[str, Any]:
        """Give the form in which it crosses a process border."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_json`.

        Raises:
            TypeError: Not of that form.
        """
        return cls(**data)


def _minutes(text: str) -> int | None:
    try:
        return int(text) if text else None
    except ValueError:
        raise SettingsError(f"CODESPACE_KERNELS_IDLE_TIMEOUT is {text!r}; it must be a number of minutes.") from None
