"""What `create` asks for: everything that no flag gave, one list after the other."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from codespace_kernels import clones
from codespace_kernels.cli import prompts, terminal
from codespace_kernels.cli.prompts import Option
from codespace_kernels.errors import SettingsError
from codespace_kernels.github.codespaces import checked_repository
from codespace_kernels.progress import ProgressEvent
from codespace_kernels.providers.codespace_checks import check_chosen, check_display_name, check_minutes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codespace_kernels.providers.base import CreateRequest, Provider, Workspace
    from codespace_kernels.providers.choices import Choices, MachineOffer

_OTHER = ""
"""Value of the line that leads to free text."""

_STANDARD_IMAGE = ""

_PREBUILDS = {"ready": "prebuilt: starts fast", "in_progress": "its prebuild is under way"}

_MINUTES_A_DAY = 24 * 60


class Questions:
    """Completes a request, by asking where somebody can be asked and by GitHub's defaults where `gh` takes them.

    Args:
        provider: Tells what there is.
        request: What the flags gave.
        consented: Whether `--yes` was given: what has a default is not asked for.
    """

    def __init__(self, provider: Provider, request: CreateRequest, *, consented: bool) -> None:
        self._provider = provider
        self._consented = consented
        self._told: set[str] = set()
        self.request = request
        self.choices: Choices | None = None

    async def complete(self) -> tuple[CreateRequest, Choices]:
        """Ask for what is missing; gives the request and what could be chosen.

        Raises:
            SettingsError: Something cannot be had; or it is missing, has no default, and nobody can be asked.
            KeyboardInterrupt: Ctrl-C in a question.
        """
        if not self.request.repository:
            self._set(repository=await self._repository())
        choices = await self._look()
        # Before anything else is chosen: it decides whether a person goes on at all.
        terminal.say(payer_line(choices))
        self._tell(choices.notes)
        if branch := await self._branch(choices):
            self._set(ref=branch)
            choices = await self._look()
        if not self.request.devcontainer_path and (path := await self._devcontainer(choices)):
            self._set(devcontainer_path=path)
            choices = await self._look()
        self._tell(choices.notes)
        check_chosen(self.request, choices)
        if not self.request.machine:
            self._set(machine=await self._machine(choices))
        return self.request, choices

    def _set(self, **values: object) -> None:
        self.request = dataclasses.replace(self.request, **values)  # type: ignore[arg-type]

    async def _look(self) -> Choices:
        with terminal.progress() as progress:
            progress(ProgressEvent("find", f"Looking up {self.request.repository}"))
            return await self._provider.choices(self.request)

    def _tell(self, notes: Sequence[str]) -> None:
        """Say what was not said yet: the lists of another branch come with the same notes."""
        for note in notes:
            if note not in self._told:
                terminal.say(f"Note: {note}")
        self._told.update(notes)

    # Repository.

    async def _repository(self) -> str:
        _must_ask("No repository is given", "name it as OWNER/REPO")
        with terminal.progress() as progress:
            progress(ProgressEvent("find", "Looking up your repositories"))
            here, known = await asyncio.gather(
                asyncio.to_thread(remotes_here, self._provider.git_host), self._provider.suggest_repositories()
            )
        while True:
            options = [Option(f"{name} (this folder)", name) for name in here]
            options += [Option(name, name) for name in known if name.casefold() not in here]
            if not options:
                return await self._typed_repository()
            options.append(Option("Another one: type its name, or words to search for", _OTHER))
            chosen = await prompts.choose("Repository?", options)
            if chosen != _OTHER:
                return chosen
            text = await prompts.type_in("OWNER/REPO, or words?")
            if _is_repository(text):
                return text
            here, known = [], await self._search(text)
            if not known:
                terminal.say(f"No repository is found for {text!r}.")

    async def _search(self, text: str) -> Sequence[str]:
        with terminal.progress() as progress:
            progress(ProgressEvent("find", f"Searching repositories for {text!r}"))
            return await self._provider.suggest_repositories(text)

    async def _typed_repository(self) -> str:
        return await prompts.type_in("Repository (OWNER/REPO)?", check=_check_repository)

    # What the repository offers.

    async def _branch(self, choices: Choices) -> str:
        if self.request.ref or self._consented or not prompts.can_ask() or len(choices.branches) < 2:
            return ""
        options = [Option(name, name) for name in choices.branches]
        if "branches" in choices.unlisted:
            options.append(Option("Another one: type its name", _OTHER))
        chosen = await prompts.choose("Branch?", options)
        chosen = chosen or await prompts.type_in("Branch?")
        return "" if chosen == choices.default_branch else chosen

    async def _devcontainer(self, choices: Choices) -> str:
        offers = choices.devcontainers
        default = next((offer.path for offer in offers if offer.is_default), _STANDARD_IMAGE)
        if not offers or (default and (len(offers) == 1 or self._consented)):
            return ""
        if not prompts.can_ask() and default:
            return ""
        paths = ", ".join(offer.path for offer in offers)
        _must_ask(f"{choices.repository} has no default devcontainer", f"choose with --devcontainer-path: {paths}")
        options = [Option(_with_path(offer.title, offer.path), offer.path) for offer in offers]
        if not default:
            options.append(Option("GitHub's standard image, none of these", _STANDARD_IMAGE))
        chosen = await prompts.choose("Dev container configuration?", options)
        return "" if chosen == default else chosen

    async def _machine(self, choices: Choices) -> str:
        if "machines" in choices.unlisted:
            # A note has said so; GitHub takes the smallest one that will do.
            return ""
        if not choices.machines:
            raise SettingsError(
                f"GitHub offers no machine type for {choices.repository}. Its devcontainer may ask for more than there "
                "is (hostRequirements), or a policy of whoever pays may forbid what it asks for."
            )
        if len(choices.machines) == 1:
            return choices.machines[0].name
        names = ", ".join(f"{offer.name} ({machine_line(offer)})" for offer in choices.machines)
        _must_ask("There are several machine types", f"choose with --machine: {names}")
        return await prompts.choose(
            "Machine type?", [Option(machine_line(offer), offer.name) for offer in choices.machines]
        )


async def consent(request: CreateRequest, choices: Choices, existing: Sequence[Workspace]) -> CreateRequest | None:
    """Show what will be created and who pays, and ask; gives the request as it then is, None for a no."""
    while True:
        _summarise(request, choices)
        tell_of_equal_titles(request, existing)
        answer = await prompts.choose(
            f"Create it? {_who(choices)} pays.",
            [
                Option("Create it", "yes"),
                Option("Change more (idle timeout, retention, region, display name)", "more"),
                Option("Create nothing", "no"),
            ],
        )
        if answer != "more":
            return request if answer == "yes" else None
        request = await ask_for_more(request, choices)


def _summarise(request: CreateRequest, choices: Choices) -> None:
    default = next((offer.path for offer in choices.devcontainers if offer.is_default), "GitHub's standard image")
    machine = next((machine_line(offer) for offer in choices.machines if offer.name == request.machine), "")
    terminal.say(f"  Repository    {choices.repository} at {request.ref or choices.default_branch}")
    terminal.say(f"  Devcontainer  {request.devcontainer_path or default}")
    terminal.say(f"  Machine type  {machine or request.machine or 'chosen by GitHub'}")
    for line in _settings(request):
        terminal.say(f"  {line}")


def _settings(request: CreateRequest) -> list[str]:
    keep = request.retention_period_minutes
    shown = (
        ("Idle timeout  ", "" if request.idle_timeout_minutes is None else f"{request.idle_timeout_minutes} minutes"),
        ("Deleted after ", "" if keep is None else f"{keep / _MINUTES_A_DAY:g} days without use"),
        ("Region        ", request.location),
        ("Display name  ", request.display_name),
    )
    return [name + value for name, value in shown if value]


def tell_of_equal_titles(request: CreateRequest, existing: Sequence[Workspace]) -> None:
    """Say that a display name is taken: GitHub allows it, but then it no longer tells which codespace is meant."""
    for workspace in existing:
        if request.display_name and workspace.title.casefold() == request.display_name.casefold():
            terminal.say(
                f"Note: {workspace.name} has the display name {workspace.title!r}, too; only their own names will tell "
                "them apart."
            )


async def ask_for_more(request: CreateRequest, choices: Choices) -> CreateRequest:
    """Let times, region and display name be changed, until there is enough of it."""
    while True:
        idle = request.idle_timeout_minutes
        keep = request.retention_period_minutes
        retention = choices.retention_minutes.default if keep is None else keep
        shown = {
            "idle": f"Idle timeout: {choices.idle_timeout_minutes.default if idle is None else idle} minutes",
            "retention": f"Deleted after it was stopped for: {retention / _MINUTES_A_DAY:g} days",
            "region": f"Region: {request.location or choices.locations[0]}",
            "name": f"Display name: {request.display_name or 'one that GitHub invents'}",
            "": "Enough changed",
        }
        field = await prompts.choose("Change what?", [Option(title, value) for value, title in shown.items()])
        if not field:
            return request
        request = await _changed(request, choices, field)


async def _changed(request: CreateRequest, choices: Choices, field: str) -> CreateRequest:
    if field == "region":
        options = [Option(name, name) for name in choices.locations]
        return dataclasses.replace(request, location=await prompts.choose("Region?", options, request.location))
    if field == "name":
        name = await prompts.type_in("Display name?", default=request.display_name, check=check_display_name)
        return dataclasses.replace(request, display_name=name)
    if field == "idle":
        bounds = choices.idle_timeout_minutes
        text = await prompts.type_in(
            f"Stop after how many minutes without use ({bounds.lowest} to {bounds.highest})?",
            check=lambda text: check_minutes("idle timeout", _number(text), bounds),
        )
        return dataclasses.replace(request, idle_timeout_minutes=_number(text))
    days = choices.retention_minutes.highest // _MINUTES_A_DAY
    text = await prompts.type_in(
        f"Delete after how many days without use (0 to {days})?",
        check=lambda text: check_minutes("retention period", _minutes_of(text), choices.retention_minutes),
    )
    return dataclasses.replace(request, retention_period_minutes=_minutes_of(text))


def payer_line(choices: Choices) -> str:
    """Say who pays."""
    return f"A codespace of {choices.repository}: {_who(choices)} pays for it."


def _who(choices: Choices) -> str:
    payer = choices.payer
    who = f"your organisation {payer.login}" if payer.kind == "Organization" else payer.login
    return who or "GitHub does not say who"


def machine_line(offer: MachineOffer) -> str:
    """Describe a machine type in one line."""
    price = "" if offer.dollars_per_hour is None else f"${offer.dollars_per_hour:.2f} an hour"
    return " · ".join(part for part in (offer.title, price, _PREBUILDS.get(offer.prebuild, "")) if part)


def remotes_here(host: str) -> list[str]:
    """Give `owner/name`, in lower case, of this folder's clone's remotes on a host; blocks."""
    repositories = clones.place_of(Path.cwd()).repositories
    return [rest for one, _, rest in (name.partition("/") for name in repositories) if one == host]


def _must_ask(problem: str, advice: str) -> None:
    """Refuse where nobody can answer.

    Raises:
        SettingsError: Says what is missing, and the flag that gives it.
    """
    if not prompts.can_ask():
        raise SettingsError(f"{problem}, and there is no terminal to ask in: {advice}.")


def _with_path(title: str, path: str) -> str:
    return path if title == path else f"{title} ({path})"


def _is_repository(text: str) -> bool:
    try:
        checked_repository(text)
    except SettingsError:
        return False
    return True


def _check_repository(text: str) -> None:
    checked_repository(text)


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise SettingsError(f"{text!r} is no whole number.") from None


def _minutes_of(text: str) -> int:
    return _number(text) * _MINUTES_A_DAY
