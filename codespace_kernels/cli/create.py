"""`codespace-kernels create [OWNER/REPO]`: create a codespace.

What no flag gives is asked for; who pays is said before anything else. A creation that was interrupted is gone on with
when the command is run again.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

from codespace_kernels.cli import connect, create_wait, prompts, terminal
from codespace_kernels.cli import options as shared
from codespace_kernels.cli.create_attempts import AttemptFile
from codespace_kernels.cli.create_questions import Questions, consent, tell_of_equal_titles
from codespace_kernels.cli.create_request import Created, Sender
from codespace_kernels.cli.prompts import Option
from codespace_kernels.errors import SettingsError, naming
from codespace_kernels.progress import ProgressEvent
from codespace_kernels.providers.base import CreateRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codespace_kernels.broker.protocol import Access
    from codespace_kernels.providers.base import Workspace
    from codespace_kernels.providers.choices import Choices

INTERRUPTED = 130


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parents = [shared.account(), shared.transport(), shared.output()]
    parser = subparsers.add_parser("create", description=__doc__, parents=parents)
    parser.add_argument("repository", metavar="OWNER/REPO", nargs="?", type=_repository)
    parser.add_argument("--branch", default="", help="branch or commit")
    parser.add_argument("--machine", default="", help="name of a machine type")
    parser.add_argument("--devcontainer-path", default="", metavar="PATH", help="which devcontainer.json to use")
    parser.add_argument("--display-name", default="", metavar="NAME", help="at most 48 bytes")
    parser.add_argument("--idle-timeout", type=int, metavar="MINUTES", help="stop after so long without use: 5 to 240")
    parser.add_argument(
        "--retention", type=int, metavar="MINUTES", help="delete so long after it was stopped: 0 to 43200"
    )
    parser.add_argument("--location", default="", help="region, such as WestEurope")
    parser.add_argument(
        "--default-permissions",
        action="store_true",
        help="decline further permissions that the devcontainer asks for",
    )
    parser.add_argument("-y", "--yes", action="store_true", help="consent, and take defaults where there are some")
    parser.add_argument("--no-wait", action="store_true", help="do not wait until it can be connected to")
    parser.add_argument(
        "--timeout",
        type=float,
        default=create_wait.WAIT_SECONDS,
        metavar="SECONDS",
        help=f"how long to wait for it (default: {create_wait.WAIT_SECONDS:g})",
    )
    parser.add_argument("--connect", action="store_true", help="go on with `connect`")
    parser.set_defaults(func=run)


def _repository(text: str) -> str:
    owner, slash, name = text.partition("/")
    if not (owner and slash and name) or "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form OWNER/REPO")
    return text


def run(options: argparse.Namespace) -> int:
    """Create a codespace; print its name, and nothing else, on stdout."""
    if not options.yes and not prompts.can_ask():
        raise SettingsError(
            "Creating a codespace, which somebody pays for, needs your consent, and there is no terminal to ask in. "
            "Add --yes to give it."
        )
    access = shared.chosen_access(options)
    creation = _Creation(access, options)
    created = creation.create()
    if created is None:
        terminal.say("Nothing was created.")
        return 1
    if not options.json:
        print(created.workspace.name, flush=True)
    return creation.see_through(created)


class _Creation:
    """One run of the verb.

    Args:
        access: Whose codespace.
        options: Of the command line.
    """

    def __init__(self, access: Access, options: argparse.Namespace) -> None:
        self._access = access
        self._options = options
        self._note: AttemptFile | None = None
        self._sender: Sender | None = None

    def create(self) -> Created | None:
        """Ask, and create; None: the person does not want it."""
        try:
            return asyncio.run(self._create())
        except KeyboardInterrupt:
            if self._sender is not None and self._sender.is_open:
                terminal.say("GitHub may have created it: see codespace-kernels list. Run this again to go on with it.")
            else:
                terminal.say("Nothing was created.")
            raise

    async def _create(self) -> Created | None:
        async with shared.open_provider(self._access) as provider:
            questions = Questions(provider, _request(self._options), consented=self._options.yes)
            request, choices = await questions.complete()
            existing = await provider.list()
            note = AttemptFile(self._access.account, request.repository)
            earlier = await self._earlier(note, request, choices, existing)
            agreed = request if earlier or self._options.yes else await consent(request, choices, existing)
            if agreed is None:
                return None
            self._note = note
            if earlier:
                return Created(earlier)
            if self._options.yes:
                tell_of_equal_titles(agreed, existing)
            self._sender = Sender(provider, note, [workspace.name for workspace in existing])
            created = await self._sender.create(agreed)
            if created is not None:
                _tell_of_policies(agreed, created.workspace)
            return created

    async def _earlier(
        self, note: AttemptFile, request: CreateRequest, choices: Choices, existing: Sequence[Workspace]
    ) -> Workspace | None:
        """Give what an interrupted run of this command created, if that is to be gone on with."""
        attempt = note.read()
        wanted = dataclasses.replace(request, ref=request.ref or choices.default_branch)
        made = attempt.made(wanted, existing) if attempt else None
        if made is None:
            return None
        what = f"{made.name} ({made.provider_state}), which an interrupted run of this command created"
        if self._options.yes:
            terminal.say(f"Going on with {what}.")
            return made
        terminal.say(f"There is {what}.")
        options = [Option(f"Go on with {made.name}", value=True), Option("Create another one", value=False)]
        return made if await prompts.choose("Go on with it?", options) else None

    def see_through(self, created: Created) -> int:
        """Wait for what was created, connect if that is wanted, and report."""
        workspace = created.workspace
        terminal.say(f"Codespace {workspace.name} is created.")
        if created.interrupted:
            return self._interrupted(workspace.name)
        try:
            with naming(workspace.name, f"Codespace {workspace.name} was created, and is kept."):
                return self._finish(workspace)
        except KeyboardInterrupt:
            return self._interrupted(workspace.name)

    def _finish(self, workspace: Workspace) -> int:
        if not self._options.no_wait:
            workspace = asyncio.run(self._wait(workspace))
        answer = connect.ask_broker(self._access, workspace.name) if self._options.connect else None
        self._forget()
        self._report(workspace, answer)
        return 0

    async def _wait(self, workspace: Workspace) -> Workspace:
        async with shared.open_provider(self._access) as provider:
            return await create_wait.until_built(provider, workspace, self._options.timeout)

    def _report(self, workspace: Workspace, answer: dict[str, Any] | None) -> None:
        result: dict[str, Any] = {"codespace": workspace.to_json()}
        if answer is None:
            terminal.say(f"Next: codespace-kernels connect {workspace.name}")
        else:
            written = connect.write_specs(self._access, answer, [])
            if not self._options.json:
                connect.report(answer, written)
            result |= {
                "connection": answer["connection"],
                "kernelspecs": [spec.to_json() for spec in written],
                "offers": answer["offers"],
            }
        if self._options.json:
            terminal.print_json(result)

    def _interrupted(self, name: str) -> int:
        if not create_wait.keep_or_delete(name):
            terminal.say(
                f"Kept codespace {name}, which costs while it runs. Go on: codespace-kernels connect {name}. "
                f"Be rid of it: codespace-kernels delete {name}"
            )
            return INTERRUPTED
        asyncio.run(self._delete(name))
        self._forget()
        terminal.say(f"Deleted codespace {name}.")
        return INTERRUPTED

    async def _delete(self, name: str) -> None:
        async with shared.open_provider(self._access) as provider:
            with terminal.progress() as progress:
                progress(ProgressEvent("delete", f"Deleting {name}"))
                await provider.delete(name)

    def _forget(self) -> None:
        if self._note is not None:
            self._note.remove()


def _tell_of_policies(request: CreateRequest, workspace: Workspace) -> None:
    """Say what is not as it was asked for: GitHub changes what a policy of the payer does not allow."""
    wanted, idle = request.idle_timeout_minutes, workspace.idle_timeout_minutes
    if workspace.idle_timeout_notice:
        terminal.say(f"Note: {workspace.idle_timeout_notice}")
    elif wanted is not None and idle not in (None, wanted):
        terminal.say(
            f"Note: its idle timeout is {idle} minutes, not {wanted}: a policy of whoever pays allows no other."
        )
    keep, kept = request.retention_period_minutes, workspace.retention_period_minutes
    if keep is not None and kept not in (None, keep):
        terminal.say(
            f"Note: it is deleted {kept} minutes after it was stopped, not {keep}: a policy of whoever pays allows no "
            "other."
        )


def _request(options: argparse.Namespace) -> CreateRequest:
    return CreateRequest(
        repository=options.repository or "",
        ref=options.branch,
        devcontainer_path=options.devcontainer_path,
        machine=options.machine,
        display_name=options.display_name,
        idle_timeout_minutes=options.idle_timeout,
        retention_period_minutes=options.retention,
        location=options.location,
        default_permissions=options.default_permissions,
    )
