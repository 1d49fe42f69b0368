"""Which kernel of which workspace, or of which kind of workspace, of which account a kernelspec means.

A front end knows a spec by name only; VS Code runs its `argv` with the spec's `env`. So the target stands in `env`, as
variables whose names begin with `CODESPACE_KERNELS_`. None of them is secret: tokens are found by account, at run time.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

from codespace_kernels.errors import SettingsError
from codespace_kernels.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

ENV_PREFIX = "CODESPACE_KERNELS_"
DEFAULT_API_URL = "https://api.github.com"

ON_OPEN, ON_RUN, NEVER = "on-open", "on-run", "never"
WAKES = (ON_OPEN, ON_RUN, NEVER)
"""What starts a stopped workspace: a notebook that is opened, a cell that is run, or neither."""

SHUTDOWN, KEEP = "shutdown", "keep"
ON_CLOSES = (SHUTDOWN, KEEP)
"""What happens to a kernel whose front end goes."""

KEEP_HOURS = 24.0
"""How long a kernel that nobody holds is kept after its last work."""

BUSY, ALWAYS = "busy", "always"
KEEP_AWAKES = (BUSY, ALWAYS, NEVER)
"""While what a workspace is kept awake: a kernel that works, one that a front end holds, or nothing."""

KEEP_AWAKE_HOURS = 12.0
"""How long a workspace is kept awake after the last thing that a person did. GitHub ends every session by then."""

YEAR_HOURS = 8760.0


@dataclasses.dataclass(frozen=True)
class Account:
    """Whose workspaces: a GitHub host, and the login where more than one is signed in there.

    Attributes:
        provider: Name of the provider, `github` for codespaces.
        api_url: Base of the REST API, without a trailing slash.
        login: Account name, or empty for the one that is signed in.
    """

    provider: str = "github"
    api_url: str = DEFAULT_API_URL
    login: str = ""

    def __post_init__(self) -> None:
        """Bring the address into one spelling, so that equal accounts are equal."""
        object.__setattr__(self, "api_url", self.api_url.rstrip("/"))

    @property
    def key(self) -> str:
        """A short name for files and dictionaries, stable over runs."""
        text = f"{self.provider}|{self.api_url}|{self.login}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True)
class Target:
    """One kernelspec of one workspace, or of any workspace that a recipe describes.

    Attributes:
        account: Whose.
        workspace: The provider's own name of the workspace (a codespace's `name`); empty where there is a recipe.
        kernel: Name of the kernelspec there; empty where only the workspace is meant.
        transport: `auto`, `tunnel` or `gh`: how to reach the workspace. It makes no other target.
        wake: One of `WAKES`. It makes no other target.
        language: Of the kernelspec there; empty where it is not known.
        on_close: One of `ON_CLOSES`. It makes no other target.
        keep_hours: Hours without work for which a kernel is kept, where `on_close` says so. It makes no other target.
        recipe: What the workspace is like; None where it is named.
        keep_awake: One of `KEEP_AWAKES`. It makes no other target.
        keep_awake_hours: Hours for which `keep_awake` holds after the last thing that a person did. It makes no other
            target.
        stop_when_idle: Minutes without work after which the workspace is stopped; 0: never. It makes no other target.

    Raises:
        SettingsError: `wake` is none of `WAKES`, `on_close` none of `ON_CLOSES`, `keep_awake` none of `KEEP_AWAKES`, a
            number is out of its range, `keep_awake` and `stop_when_idle` contradict each other, or both a workspace and
            a recipe are given.
    """

    account: Account
    workspace: str
    kernel: str = ""
    transport: str = dataclasses.field(default="auto", compare=False)
    wake: str = dataclasses.field(default=ON_RUN, compare=False)
    language: str = dataclasses.field(default="", compare=False)
    on_close: str = dataclasses.field(default=SHUTDOWN, compare=False)
    keep_hours: float = dataclasses.field(default=KEEP_HOURS, compare=False)
    recipe: Recipe | None = None
    keep_awake: str = dataclasses.field(default=BUSY, compare=False)
    keep_awake_hours: float = dataclasses.field(default=KEEP_AWAKE_HOURS, compare=False)
    stop_when_idle: float = dataclasses.field(default=0.0, compare=False)

    def __post_init__(self) -> None:
        """Check what a person may have written by hand."""
        if self.wake not in WAKES:
            raise SettingsError(f"{ENV_PREFIX}WAKE is {self.wake!r}; it can be {', '.join(WAKES)}.")
        if self.on_close not in ON_CLOSES:
            raise SettingsError(f"{ENV_PREFIX}ON_CLOSE is {self.on_close!r}; it can be {', '.join(ON_CLOSES)}.")
        if not self.keep_hours > 0:
            raise SettingsError(f"{ENV_PREFIX}KEEP_HOURS is {self.keep_hours:g}; it must be above 0.")
        self._check_care()
        if self.workspace and self.recipe is not None:
            raise SettingsError(f"{ENV_PREFIX}WORKSPACE and {ENV_PREFIX}REPOSITORY are both given; give one of them.")

    def _check_care(self) -> None:
        if self.keep_awake not in KEEP_AWAKES:
            raise SettingsError(f"{ENV_PREFIX}KEEP_AWAKE is {self.keep_awake!r}; it can be {', '.join(KEEP_AWAKES)}.")
        if not 0 < self.keep_awake_hours <= YEAR_HOURS:
            raise SettingsError(
                f"{ENV_PREFIX}KEEP_AWAKE_HOURS is {self.keep_awake_hours:g}; it must be above 0, and a year at most."
            )
        if not 0 <= self.stop_when_idle <= YEAR_HOURS * 60:
            raise SettingsError(
                f"{ENV_PREFIX}STOP_WHEN_IDLE is {self.stop_when_idle:g}; it must be minutes, a year at most, or 0."
            )
        if self.stop_when_idle and self.keep_awake == ALWAYS:
            raise SettingsError(
                f"keep_awake {ALWAYS!r} keeps an idle codespace running, and stop_when_idle stops it "
                f"({ENV_PREFIX}KEEP_AWAKE, {ENV_PREFIX}STOP_WHEN_IDLE). Give one of them."
            )

    @property
    def place(self) -> str:
        """The workspace's name, or what the recipe says, for people."""
        return self.workspace if self.recipe is None else self.recipe.title

    @property
    def key(self) -> str:
        """A name for dictionaries and files that hold something for each target, stable over runs."""
        place = self.workspace if self.recipe is None else f"recipe {self.recipe.key}"
        return f"{self.account.key}/{place}/{self.kernel}"

    def at(self, workspace: str) -> Target:
        """Give the target that means the same kernel in a workspace by name."""
        return dataclasses.replace(self, workspace=workspace, recipe=None)

    def to_env(self) -> dict[str, str]:
        """Give the variables that stand in a spec's `env`."""
        values = {
            "PROVIDER": self.account.provider,
            "API_URL": self.account.api_url,
            "LOGIN": self.account.login,
            "WORKSPACE": self.workspace,
            "KERNEL": self.kernel,
            "TRANSPORT": self.transport if self.transport != "auto" else "",
            "WAKE": self.wake if self.wake != ON_RUN else "",
            "LANGUAGE": self.language,
            "ON_CLOSE": self.on_close if self.on_close != SHUTDOWN else "",
            "KEEP_HOURS": f"{self.keep_hours:g}" if self.keep_hours != KEEP_HOURS else "",
            "KEEP_AWAKE": self.keep_awake if self.keep_awake != BUSY else "",
            "KEEP_AWAKE_HOURS": f"{self.keep_awake_hours:g}" if self.keep_awake_hours != KEEP_AWAKE_HOURS else "",
            "STOP_WHEN_IDLE": f"{self.stop_when_idle:g}" if self.stop_when_idle else "",
            **(self.recipe.to_env() if self.recipe is not None else {}),
        }
        return {ENV_PREFIX + name: value for name, value in values.items() if value}

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Target:
        """Read the target from an environment.

        Raises:
            SettingsError: Workspace or kernel is not named there, or a value is unknown.
        """
        values = {name.removeprefix(ENV_PREFIX): text for name, text in env.items() if name.startswith(ENV_PREFIX)}
        recipe = Recipe.from_env(values)
        needed = ("WORKSPACE", "KERNEL") if recipe is None else ("KERNEL",)
        missing = [ENV_PREFIX + name for name in needed if not values.get(name)]
        if missing:
            raise SettingsError(
                f"The kernelspec does not say where its kernel runs ({' and '.join(missing)} missing from its env). "
                "Write it anew with `codespace-kernels connect`."
            )
        provider, api_url = values.get("PROVIDER") or "github", values.get("API_URL") or DEFAULT_API_URL
        return cls(
            Account(provider, api_url, values.get("LOGIN", "")),
            values.get("WORKSPACE", ""),
            values["KERNEL"],
            values.get("TRANSPORT") or "auto",
            values.get("WAKE") or ON_RUN,
            values.get("LANGUAGE", ""),
            values.get("ON_CLOSE") or SHUTDOWN,
            _number(values, "KEEP_HOURS", KEEP_HOURS, "hours"),
            recipe,
            values.get("KEEP_AWAKE") or BUSY,
            _number(values, "KEEP_AWAKE_HOURS", KEEP_AWAKE_HOURS, "hours"),
            _number(values, "STOP_WHEN_IDLE", 0.0, "minutes"),
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Target:
        """Rebuild from `dataclasses.asdict`.

        Raises:
            KeyError, TypeError: Not of that form.
        """
        recipe = data.get("recipe")
        values = {"account": Account(**data["account"]), "recipe": None if recipe is None else Recipe.from_json(recipe)}
        return cls(**{**data, **values})


def _number(values: Mapping[str, str], name: str, default: float, unit: str) -> float:
    text = values.get(name, "")
    try:
        return float(text) if text else default
    except ValueError:
        raise SettingsError(f"{ENV_PREFIX}{name} is {text!r}; it must be a number of {unit}.") from None
