"""Requests about the account: its codespaces, and what could be created."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import tornado.web

from codespace_kernels.cli.options import open_provider
from codespace_kernels.errors import SettingsError
from codespace_kernels.github.hosts import host_of
from codespace_kernels.lab.handler import LabHandler
from codespace_kernels.lab.work import access
from codespace_kernels.providers.base import CreateRequest
from codespace_kernels.providers.prices import PRICES_DATE, PRICES_SOURCE

if TYPE_CHECKING:
    from collections.abc import Mapping

PRICES = {"source": PRICES_SOURCE, "date": PRICES_DATE}


def create_request(data: Mapping[str, Any]) -> CreateRequest:
    """Read what a page wants created; empty values count as not given.

    Raises:
        SettingsError: A value is unknown or of another type.
    """
    kinds = {"str": str, "int | None": int, "bool": bool}
    fields = {field.name: kinds[str(field.type)] for field in dataclasses.fields(CreateRequest)}
    wanted = {name: value for name, value in data.items() if value not in ("", None)}
    wrong = [name for name, value in wanted.items() if type(value) is not fields.get(name)]
    if wrong or "repository" not in wanted:
        raise SettingsError(f"The request lacks or misspells {', '.join(wrong) or 'repository'}.")
    return CreateRequest(**wanted)


class CodespacesHandler(LabHandler):
    """`GET codespaces`: the account's codespaces. Asks GitHub once, when a person looks at the list."""

    @tornado.web.authenticated
    async def get(self) -> None:
        """Answer."""
        async with open_provider(access()) as provider:
            found = await provider.list()
        newest_first = sorted(found, key=lambda workspace: workspace.last_used_at, reverse=True)
        self.answer(
            {
                "host": host_of(access().account.api_url),
                "codespaces": [workspace.to_json() for workspace in newest_first],
                "prices": PRICES,
            }
        )


class RepositoriesHandler(LabHandler):
    """`GET repositories?text=…`: repositories that could be meant."""

    @tornado.web.authenticated
    async def get(self) -> None:
        """Answer."""
        async with open_provider(access()) as provider:
            found = await provider.suggest_repositories(self.get_query_argument("text", ""))
        self.answer({"repositories": list(found)})


class ChoicesHandler(LabHandler):
    """`POST choices`: what a creation may be given, and who would pay. Makes nothing."""

    @tornado.web.authenticated
    async def post(self) -> None:
        """Answer."""
        request = create_request(self.json_body())
        async with open_provider(access()) as provider:
            choices = await provider.choices(request)
        self.answer({**choices.to_json(), "prices": PRICES})
