"""The calls of GitHub's codespaces API that this package makes."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from codespace_kernels.errors import GitHubError, NotFoundError, PendingOperationError, SettingsError
from codespace_kernels.github.models import Codespace, CreationTerms, Devcontainer, Machine, Repository

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from codespace_kernels.github.client import GitHubClient

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*/(?!\.{1,2}$)[A-Za-z0-9._-]+")
_NOT_MODIFIED, _ACCEPTED, _FORBIDDEN, _CONFLICT, _UNPROCESSABLE = 304, 202, 403, 409, 422


class CodespacesApi:
    """The codespaces of one account. Every method may raise `AuthError` and `GitHubError`.

    Args:
        client: What carries the calls; it stays its owner's to close.
    """

    def __init__(self, client: GitHubClient) -> None:
        self.client = client

    async def list_codespaces(self, repository: str = "") -> list[Codespace]:
        """List the account's codespaces, of one repository (`owner/name`) or all."""
        path = f"/repos/{checked_repository(repository)}/codespaces" if repository else "/user/codespaces"
        what = f"list the codespaces of {repository}" if repository else "list codespaces"
        return [Codespace.from_json(item) async for item in self.client.pages(path, what, "codespaces")]

    async def get(self, name: str) -> Codespace:
        """Get a codespace in the public form.

        Raises:
            NotFoundError: The account has none of this name.
        """
        return Codespace.from_json(await self.client.get(_path(name), f"find codespace {name}", cached=True))

    async def get_internal(self, name: str) -> Codespace:
        """Get a codespace in the internal form, with fresh tunnel tokens where it is available.

        The form is not in GitHub's OpenAPI description; it is the one that `gh` asks for before it connects.

        Raises:
            NotFoundError: The account has none of this name.
        """
        params = {"internal": "true", "refresh": "true"}
        return Codespace.from_json(await self.client.get(_path(name), f"find codespace {name}", params=params))

    async def create(self, body: Mapping[str, Any]) -> tuple[Codespace, bool]:
        """Create a codespace; never repeated by itself, since each time may make a machine.

        Args:
            body: As `POST /user/codespaces` has it; `repository_id` at least.

        Returns:
            The codespace, and whether GitHub is still at it (202).

        Raises:
            PermissionsRequiredError: A person must grant permissions first; see its `url`.
        """
        what = "create the codespace"
        response = await self.client.request("POST", "/user/codespaces", what, json=body, repeatable=False)
        return Codespace.from_json(self.client.document(response, what)), response.status_code == _ACCEPTED

    async def start(self, name: str) -> bool:
        """Start a codespace; tells whether GitHub took it, false where it runs already or cannot be started now (409).

        Raises:
            PaymentRequiredError: Nobody pays for it.
            PendingOperationError: Another operation on it is still running.
        """
        try:
            await self._change("POST", name, "/start", f"start codespace {name}")
        except GitHubError as error:
            if error.status not in (_CONFLICT, _NOT_MODIFIED):
                raise
            return False
        return True

    async def stop(self, name: str) -> Codespace:
        """Stop a codespace; gives it as GitHub then describes it.

        Raises:
            PendingOperationError: Another operation on it is still running.
        """
        what = f"stop codespace {name}"
        return Codespace.from_json(self.client.document(await self._change("POST", name, "/stop", what), what))

    async def delete(self, name: str) -> None:
        """Delete a codespace and all that is in it."""
        await self.client.request("DELETE", _path(name), f"delete codespace {name}")

    async def update(self, name: str, changes: Mapping[str, Any]) -> Codespace:
        """Change `display_name`, `machine` or `idle_timeout_minutes`.

        Raises:
            PendingOperationError: Another operation on it is still running.
        """
        what = f"change codespace {name}"
        return Codespace.from_json(self.client.document(await self._change("PATCH", name, "", what, changes), what))

    async def _change(
        self, method: str, name: str, rest: str, what: str, json: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        """Send a request that may be done twice; a pending operation is told only by the codespace itself."""
        try:
            return await self.client.request(method, _path(name, rest), what, json=json, repeatable=True)
        except GitHubError as error:
            if error.status == _UNPROCESSABLE and (codespace := await self.get(name)).pending_operation:
                raise pending_operation(codespace) from error
            raise

    async def repository(self, full_name: str) -> Repository:
        """Look up a repository (`owner/name`).

        Raises:
            SettingsError: The name has another form.
            NotFoundError: It does not exist, or is hidden from the account.
        """
        path = f"/repos/{checked_repository(full_name)}"
        return Repository.from_json(await self.client.get(path, f"find repository {full_name}", cached=True))

    async def terms(self, full_name: str, ref: str = "") -> CreationTerms:
        """Tell who would pay for a codespace of a repository, and what is taken where nothing is chosen.

        All is empty where GitHub does not say (404), as for a repository that is not there.

        Raises:
            GitHubError: 403: no codespace may be made of it.
        """
        path = f"/repos/{checked_repository(full_name)}/codespaces/new"
        params = {"ref": ref} if ref else None
        try:
            answer = await self.client.get(path, f"create a codespace of {full_name}", params=params)
        except NotFoundError:
            return CreationTerms()
        except GitHubError as error:
            raise _not_allowed(full_name, error) if error.status == _FORBIDDEN else error from error
        return CreationTerms.from_json(answer)

    async def branches(self, full_name: str, most: int) -> list[str]:
        """List the names of a repository's branches, in GitHub's order and no more than `most`."""
        path = f"/repos/{checked_repository(full_name)}/branches"
        found = await self._first(most, path, f"list the branches of {full_name}")
        return [str(item.get("name") or "") for item in found]

    async def own_repositories(self, most: int) -> list[str]:
        """List the repositories that the account owns or works on, those pushed to last first, no more than `most`."""
        found = await self._first(most, "/user/repos", "list your repositories", {"sort": "pushed"})
        return [Repository.from_json(item).full_name for item in found]

    async def search_repositories(self, query: str, most: int) -> list[str]:
        """Search repositories (`GET /search/repositories`, which has a rate limit of its own); the best first."""
        params = {"q": query, "per_page": str(most)}
        answer = await self.client.get("/search/repositories", "search repositories", params=params)
        return [Repository.from_json(item).full_name for item in answer.get("items") or [] if isinstance(item, dict)]

    async def _first(
        self, most: int, path: str, what: str, params: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """Give the first items of a list whose pages are bare arrays."""
        found: list[dict[str, Any]] = []
        async with contextlib.aclosing(self.client.pages(path, what, "", params=params)) as items:
            async for item in items:
                found.append(item)
                if len(found) == most:
                    break
        return found

    async def devcontainers(self, repository: Repository, ref: str = "") -> list[Devcontainer]:
        """List the devcontainers of a repository at a branch (its default branch where empty)."""
        path = f"/repositories/{repository.id}/codespaces/devcontainers"
        params = {"ref": ref or repository.default_branch}
        what = f"list the devcontainers of {repository.full_name}"
        pages = self.client.pages(path, what, "devcontainers", params=params)
        return [Devcontainer.from_json(item) async for item in pages]

    async def machines(
        self, repository: Repository, *, ref: str = "", devcontainer_path: str = "", location: str = ""
    ) -> list[Machine]:
        """List the machine types that GitHub offers for a repository.

        `devcontainer_path` is not in the public description of this call; `gh` sends it.
        """
        path = f"/repositories/{repository.id}/codespaces/machines"
        params = {"devcontainer_path": devcontainer_path, "location": location, "ref": ref or repository.default_branch}
        what = f"list the machine types for {repository.full_name}"
        answer = await self.client.get(path, what, params=params, cached=True)
        return [Machine.from_json(item) for item in answer.get("machines") or [] if isinstance(item, dict)]

    async def machines_of(self, name: str) -> list[Machine]:
        """List the machine types that a codespace can be changed to."""
        what = f"list the machine types for codespace {name}"
        answer = await self.client.get(_path(name, "/machines"), what)
        return [Machine.from_json(item) for item in answer.get("machines") or [] if isinstance(item, dict)]

    async def permissions_accepted(self, repository: Repository, ref: str, devcontainer_path: str) -> bool:
        """Tell whether the extra permissions that a devcontainer asks for have been granted."""
        path = f"/repositories/{repository.id}/codespaces/permissions_check"
        params = {"ref": ref or repository.default_branch, "devcontainer_path": devcontainer_path}
        answer = await self.client.get(path, f"check the permissions for {repository.full_name}", params=params)
        return answer.get("accepted") is True

    async def whoami(self) -> str:
        """Give the login that the token belongs to."""
        return str((await self.client.get("/user", "find out who is signed in", cached=True)).get("login") or "")


def checked_repository(full_name: str) -> str:
    """Give `owner/name` as it is.

    Raises:
        SettingsError: The text has another form.
    """
    if not _REPOSITORY.fullmatch(full_name):
        raise SettingsError(f"{full_name!r} is no repository. Write it as OWNER/NAME, for example octocat/hello.")
    return full_name


def _not_allowed(full_name: str, error: GitHubError) -> GitHubError:
    """Word the 403 of `codespaces/new`; those that have a reason of their own keep it."""
    if type(error) is not GitHubError:
        return error
    refusal = GitHubError(
        f"No codespace can be created with {full_name} by this account. {error} Ask its owner to allow it, or take a "
        "fork of yours."
    )
    refusal.status = error.status
    return refusal


def pending_operation(codespace: Codespace) -> PendingOperationError:
    """Build the error for a codespace that is taken by an operation."""
    reason = codespace.pending_operation_reason or "GitHub does not say which"
    return PendingOperationError(
        f"Codespace {codespace.name} is taken by another operation ({reason.rstrip('.')}). "
        "Wait until it ends, then try again."
    )


def _path(name: str, rest: str = "") -> str:
    return f"/user/codespaces/{quote(name, safe='')}{rest}"
