"""The endpoints of GitHub's REST API that have to do with codespaces."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from codespace_kernels.emulator.api import ApiHandler
from codespace_kernels.emulator.bodies import apply_patch, parse_create
from codespace_kernels.emulator.models import CodespaceState
from codespace_kernels.emulator.refusals import ApiError, not_found
from codespace_kernels.emulator.rendering import (
    branch_json,
    codespace_json,
    devcontainer_json,
    file_json,
    found_repository_json,
    full_repository_json,
    internal_codespace_json,
    machine_json,
    own_user_json,
    user_json,
)

if TYPE_CHECKING:
    from codespace_kernels.emulator.codespace import Codespace
    from codespace_kernels.emulator.models import Repository
    from codespace_kernels.emulator.rendering import Json


class _Codespaces(ApiHandler):
    """What the handlers of one and of many codespaces share."""

    def render_public(self, codespace: Codespace) -> Json:
        return codespace_json(codespace, self.base)

    def create(self, repository: Repository | None) -> None:
        body = self.json_body()
        wanted = parse_create(body, self.account, repository)
        if body.get("multi_repo_permissions_opt_out") is not True and self.faults.take("permissions", "", "create"):
            address = f"{self.base}/{wanted.repository.full_name}/codespaces/allow_permissions"
            raise ApiError(
                401,
                "You must authorize or deny additional permissions requested by this codespace before continuing.",
                extra={"allow_permissions_url": address},
            )
        codespace = self.account.create_codespace(wanted)
        accepted = self.faults.take("create-accepted", "")
        self.send(self.render_public(codespace), 202 if accepted else 201)


class UserCodespacesHandler(_Codespaces):
    """`/user/codespaces`: list and create."""

    def get(self) -> None:
        """List the user's codespaces, the newest first; `repository_id` narrows the list."""
        wanted = self.get_query_argument("repository_id", "")
        found = [c for c in self.account.codespaces.values() if wanted in ("", str(c.repository.id))]
        self.send_page("codespaces", found[::-1], self.render_public)

    def post(self) -> None:
        """Create a codespace."""
        self.create(None)


class CodespaceHandler(_Codespaces):
    """`/user/codespaces/{name}`: get, patch and delete."""

    @property
    def operation(self) -> str:
        """Tell the internal form, which alone carries the tunnel, from the public one."""
        return "get-internal" if self.request.method == "GET" and self._is_internal else super().operation

    @property
    def _is_internal(self) -> bool:
        return self.get_query_argument("internal", "") in {"true", "1"}

    def get(self, name: str) -> None:
        """Give the codespace; with `internal=true` including its `connection`."""
        codespace = self.find_codespace(name)
        if not self._is_internal:
            self.send(self.render_public(codespace))
            return
        no_tunnel = self.faults.take("no-tunnel", name)
        if no_tunnel and int(no_tunnel.options["status"]) >= 400:
            raise ApiError(int(no_tunnel.options["status"]), "Server Error")
        may_connect = self.token.may_connect and not no_tunnel
        self.send(internal_codespace_json(codespace, self.base, may_connect=may_connect))

    def patch(self, name: str) -> None:
        """Change display name, machine type or idle timeout."""
        codespace = self.find_codespace(name)
        refuse_while_pending(codespace)
        apply_patch(self.json_body(), self.account, codespace)
        self.send(self.render_public(codespace))

    def delete(self, name: str) -> None:
        """Delete the codespace, whatever it is doing."""
        self.account.remove_codespace(self.find_codespace(name))
        self.send({}, 202)


class CodespaceStartHandler(_Codespaces):
    """`/user/codespaces/{name}/start`."""

    def post(self, name: str) -> None:
        """Start the codespace; 409 where it is not stopped."""
        codespace = self.find_codespace(name)
        refuse_while_pending(codespace)
        if codespace.state is not CodespaceState.SHUTDOWN or not codespace.start():
            raise ApiError(409, f"The codespace cannot be started: it is {codespace.state.value}.")
        self.send(self.render_public(codespace))


class CodespaceStopHandler(_Codespaces):
    """`/user/codespaces/{name}/stop`."""

    def post(self, name: str) -> None:
        """Stop the codespace; one that is stopped already is no error."""
        codespace = self.find_codespace(name)
        refuse_while_pending(codespace)
        codespace.stop()
        self.send(self.render_public(codespace))


class CodespaceMachinesHandler(ApiHandler):
    """`/user/codespaces/{name}/machines`."""

    def get(self, name: str) -> None:
        """List the machine types to which the codespace may move."""
        machines = self.account.machine_types(self.find_codespace(name).repository)
        self.send({"total_count": len(machines), "machines": [machine_json(machine) for machine in machines]})


class _OfRepository(_Codespaces):
    """A handler below a repository, which is named by owner and name or by its id."""

    repository: Repository

    def prepare(self) -> None:
        """Find the repository once the request is let in."""
        super().prepare()
        keys = ("owner", "repo", "number")
        owner, repo, number = (self.path_kwargs.get(key) for key in keys)
        self.repository = self.find_repository(owner, repo, number)
        for key in keys:
            self.path_kwargs.pop(key, None)


class RepositoryHandler(_OfRepository):
    """`/repos/{owner}/{repo}`."""

    accepted_scopes = "repo"

    def get(self) -> None:
        """Give the repository."""
        self.send(full_repository_json(self.repository, self.base))


class RepositoryCodespacesHandler(_OfRepository):
    """`…/codespaces` of a repository: list and create."""

    def get(self) -> None:
        """List the user's codespaces of the repository, the newest first."""
        found = [c for c in self.account.codespaces.values() if c.repository is self.repository]
        self.send_page("codespaces", found[::-1], self.render_public)

    def post(self) -> None:
        """Create a codespace of the repository."""
        self.create(self.repository)


class NewCodespaceHandler(_OfRepository):
    """`…/codespaces/new` of a repository: what creating would mean."""

    def get(self) -> None:
        """Tell who would pay, and the defaults."""
        payer = user_json(self.account.payer(self.repository), self.base)
        defaults = {"location": "EastUs", "devcontainer_path": self.repository.default_devcontainer}
        self.send({"billable_owner": payer, "defaults": defaults})


class DevcontainersHandler(_OfRepository):
    """`…/codespaces/devcontainers` of a repository."""

    def get(self) -> None:
        """List its devcontainer files."""
        render = partial(devcontainer_json, self.repository)
        self.send_page("devcontainers", self.repository.devcontainers, render)


class MachinesHandler(_OfRepository):
    """`…/codespaces/machines` of a repository."""

    def get(self) -> None:
        """List the machine types that a new codespace may have."""
        machines = self.account.machine_types(self.repository)
        self.send({"total_count": len(machines), "machines": [machine_json(machine) for machine in machines]})


class PermissionsCheckHandler(_OfRepository):
    """`…/codespaces/permissions_check` of a repository."""

    def get(self) -> None:
        """Tell whether the permissions that the devcontainer asks for were granted."""
        self.send({"accepted": self.faults.get("permissions", "") is None})


class BranchesHandler(_OfRepository):
    """`…/branches` of a repository."""

    accepted_scopes = ""

    def get(self) -> None:
        """List its branches by name."""
        self.send_page("", sorted(self.repository.branches), lambda name: branch_json(self.repository, name, self.base))


class ContentsHandler(_OfRepository):
    """`…/contents/{path}` of a repository; the slash in the path may be percent-encoded, as `gh` 2.103 does it."""

    accepted_scopes = ""

    def get(self, path: str) -> None:
        """Give one file."""
        ref = self.get_query_argument("ref", self.repository.default_branch)
        if path not in self.repository.files or ref not in self.repository.branches:
            raise not_found()
        self.send(file_json(self.repository, path, self.base))


class UserHandler(ApiHandler):
    """`/user`."""

    accepted_scopes = ""

    def get(self) -> None:
        """Give the user whose token it is."""
        self.send(own_user_json(self.account.user, self.base, len(self.account.repositories)))


class UserRepositoriesHandler(ApiHandler):
    """`/user/repos`."""

    accepted_scopes = ""

    def get(self) -> None:
        """List the repositories that the user owns or works on; the emulated user works on all of them."""
        repositories = list(self.account.repositories.values())
        if self.get_query_argument("sort", "full_name") == "full_name":
            repositories.sort(key=lambda repository: repository.full_name.lower())
        self.send_page("", repositories, lambda repository: full_repository_json(repository, self.base))


class SearchRepositoriesHandler(ApiHandler):
    """`/search/repositories`: words, `in:name` and `user:LOGIN`; other qualifiers are passed over."""

    accepted_scopes = ""

    def get(self) -> None:
        """Find repositories."""
        text = self.get_query_argument("q", "").lower()
        if not text.strip():
            item = {"resource": "Search", "field": "q", "code": "missing"}
            raise ApiError(422, "Validation Failed", errors=[item])
        words = [word for word in text.split() if ":" not in word]
        owners = [word.removeprefix("user:") for word in text.split() if word.startswith("user:")]
        found = [
            repository
            for repository in self.account.repositories.values()
            if all(word in repository.name.lower() for word in words)
            and (not owners or repository.owner.login.lower() in owners)
        ]
        self.send_page("items", found, lambda one: found_repository_json(one, self.base), incomplete_results=False)


class RateLimitHandler(ApiHandler):
    """`/rate_limit`, which is free."""

    accepted_scopes = ""
    is_counted = False

    def get(self) -> None:
        """Give the state of the quota."""
        core = self.quota.to_json()
        self.send({"resources": {"core": core, "search": core}, "rate": core})


class MetaHandler(ApiHandler):
    """`/meta`: addresses and names that GitHub's services use; GitHub gives it without a token, too."""

    accepted_scopes = ""

    def get(self) -> None:
        """Give the names; of what this machine emulates there is one, and it is no pattern such as `*.github.com`."""
        own = urlsplit(self.base).hostname
        fault = self.faults.take("network-names", "")
        names = str(fault.options["names"]).split(",") if fault else [own]
        self.send({"verifiable_password_authentication": False, "domains": {"website": [own], "codespaces": names}})


def refuse_while_pending(codespace: Codespace) -> None:
    """Refuse everything but deletion while an operation is pending.

    Raises:
        ApiError: 422 with the reason. GitHub gives no status for this; `gh` looks for a pending operation after a 422.
    """
    reason = codespace.pending_operation
    if reason:
        raise ApiError(422, reason)


_NAME = r"/user/codespaces/(?P<name>[^/]+)"
_REPOSITORY = r"/(?:repos/(?P<owner>[^/]+)/(?P<repo>[^/]+)|repositories/(?P<number>\d+))"

Operations = dict[str, str]

ROUTES: list[tuple[str, type[ApiHandler], Operations]] = [
    (r"/user", UserHandler, {"GET": "user"}),
    (r"/user/repos", UserRepositoriesHandler, {"GET": "user-repositories"}),
    (r"/search/repositories", SearchRepositoriesHandler, {"GET": "search-repositories"}),
    (r"/rate_limit", RateLimitHandler, {"GET": "rate-limit"}),
    (r"/meta", MetaHandler, {"GET": "meta"}),
    (r"/user/codespaces", UserCodespacesHandler, {"GET": "list", "POST": "create"}),
    (_NAME, CodespaceHandler, {"GET": "get", "PATCH": "patch", "DELETE": "delete"}),
    (_NAME + "/start", CodespaceStartHandler, {"POST": "start"}),
    (_NAME + "/stop", CodespaceStopHandler, {"POST": "stop"}),
    (_NAME + "/machines", CodespaceMachinesHandler, {"GET": "codespace-machines"}),
    (_REPOSITORY, RepositoryHandler, {"GET": "repository"}),
    (_REPOSITORY + "/codespaces", RepositoryCodespacesHandler, {"GET": "repository-list", "POST": "create"}),
    (_REPOSITORY + "/codespaces/new", NewCodespaceHandler, {"GET": "new"}),
    (_REPOSITORY + "/codespaces/devcontainers", DevcontainersHandler, {"GET": "devcontainers"}),
    (_REPOSITORY + "/codespaces/machines", MachinesHandler, {"GET": "machines"}),
    (_REPOSITORY + "/codespaces/permissions_check", PermissionsCheckHandler, {"GET": "permissions-check"}),
    (_REPOSITORY + "/branches", BranchesHandler, {"GET": "branches"}),
    (_REPOSITORY + "/contents/(?P<path>.+)", ContentsHandler, {"GET": "contents"}),
]
"""Path pattern, handler, and which of `faults.OPERATIONS` each HTTP method is."""
