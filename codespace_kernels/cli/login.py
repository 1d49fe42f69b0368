"""`codespace-kernels login`: sign in to GitHub, so that codespaces can be listed, started and connected to.

Where a token is there already that can do all this (in the environment, of `gh`), that is said and nothing done. Else
GitHub's device flow is used: a code is typed into a web page. See docs/sign-in.md for the client id that it needs.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import time
import webbrowser
from typing import TYPE_CHECKING, Any

from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal
from codespace_kernels.errors import AuthError, NoTokenError, SettingsError
from codespace_kernels.progress import ProgressEvent

if TYPE_CHECKING:
    from codespace_kernels.github.device_flow import DeviceFlow, IssuedToken
    from codespace_kernels.github.sign_in import SignIns
    from codespace_kernels.target import Account

CLIENT_ID = "CODESPACE_KERNELS_CLIENT_ID"
SCOPE = "codespace"


@dataclasses.dataclass(frozen=True)
class Standing:
    """What a token is good for.

    Attributes:
        host: Whose token.
        login: Who is signed in; empty where nobody is.
        source: Where the token comes from.
        scopes: It has; None where GitHub names none, as for fine-grained tokens.
        can_connect: Whether kernels can be had with it.
        problem: Why not; a sentence with the fix.
    """

    host: str
    login: str = ""
    source: str = ""
    scopes: list[str] | None = None
    can_connect: bool = False
    problem: str = ""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "login",
        description=__doc__,
        parents=[shared.account(), shared.output()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--status", action="store_true", help="only say who is signed in and what the token can do")
    parser.add_argument("--force", action="store_true", help="sign in although a token is there that can do everything")
    parser.add_argument("--client-id", metavar="ID", help=f"of an app with the device flow (default: {CLIENT_ID})")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    parser.add_argument(
        "--insecure-storage",
        action="store_true",
        help="keep the token in a file for your eyes only, not in the keyring",
    )
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Sign in, or say who is."""
    account = shared.chosen_account(options)
    standing = asyncio.run(standing_of(account))
    if not options.status and (options.force or not standing.can_connect):
        _explain(standing)
        asyncio.run(_sign_in(options, account))
        standing = asyncio.run(standing_of(account))
    return _report(options, standing)


def _explain(standing: Standing) -> None:
    if standing.login:
        terminal.say(standing.problem or f"{standing.login} is signed in by {standing.source}.")


def _report(options: argparse.Namespace, standing: Standing) -> int:
    if options.json:
        terminal.print_json(dataclasses.asdict(standing))
    elif standing.can_connect:
        terminal.say(f"Signed in to {standing.host} as {standing.login}, by {standing.source}.")
    else:
        terminal.say(standing.problem)
    return 0 if standing.can_connect else 4


async def standing_of(account: Account) -> Standing:
    """Find out who is signed in, and what for; that nobody is, is an answer."""
    from codespace_kernels.github import GitHubClient, host_of, token_sources

    host = host_of(account.api_url)
    async with GitHubClient(account, token_sources(account, os.environ)) as client:
        try:
            token = await client.token()
        except NoTokenError as error:
            return Standing(host, problem=str(error))
        try:
            response = await client.request("GET", "/user", "find out who is signed in")
        except AuthError as error:
            return Standing(host, source=token.source, problem=str(error))
        token = await client.token()
        login = str(client.document(response, "find out who is signed in").get("login") or "")
        given = response.headers.get("x-oauth-scopes")
    scopes = None if given is None else [scope.strip() for scope in given.split(",") if scope.strip()]
    return _judged(Standing(host, login, token.source, scopes), fine_grained=token.fine_grained)


def _judged(standing: Standing, *, fine_grained: bool) -> Standing:
    who = f"{standing.login} is signed in by {standing.source}"
    if fine_grained:
        problem = (
            f"{who}, but GitHub gives fine-grained tokens no way into a codespace. Sign in, or use a classic token."
        )
        return dataclasses.replace(standing, problem=problem)
    if standing.scopes is not None and SCOPE not in standing.scopes:
        advice = f"Sign in, or run `gh auth refresh -h {standing.host} -s {SCOPE}`."
        problem = f"{who}, but that token lacks the scope {SCOPE}. {advice}"
        return dataclasses.replace(standing, problem=problem)
    return dataclasses.replace(standing, can_connect=True)


async def _sign_in(options: argparse.Namespace, account: Account) -> None:
    from codespace_kernels.github.device_flow import DeviceFlow
    from codespace_kernels.github.sign_in import SignIns

    client_id = options.client_id or os.environ.get(CLIENT_ID, "").strip()
    if not client_id:
        raise SettingsError(
            f"Signing in needs the client id of an app that you or your organisation registered: give --client-id or "
            f"{CLIENT_ID} (docs/sign-in.md says how to get one). Or sign in with `gh auth login -s {SCOPE}`."
        )
    flow, sign_ins = DeviceFlow(account.api_url, client_id), SignIns(account.api_url)
    try:
        token = await _ask_person(options, flow)
    finally:
        await flow.close()
    await _keep(options, sign_ins, token)


async def _ask_person(options: argparse.Namespace, flow: DeviceFlow) -> IssuedToken:
    code = await flow.begin()
    terminal.say(f"Open {code.verification_uri} and enter the code {code.user_code}")
    if not options.no_browser and terminal.is_interactive():
        await asyncio.to_thread(webbrowser.open, code.verification_uri)
    with terminal.progress() as progress:
        progress(ProgressEvent("sign-in", f"Waiting for the code to be entered, until {_clock(code.expires_in)}"))
        return await flow.wait(code)


async def _keep(options: argparse.Namespace, sign_ins: SignIns, token: IssuedToken) -> None:
    if SCOPE not in token.scopes and token.scopes:
        terminal.say(f"The token lacks the scope {SCOPE}: the app does not ask for it, or you did not grant it.")
    await sign_ins.save(token, in_file=options.insecure_storage)


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M", time.localtime(time.time() + seconds))
