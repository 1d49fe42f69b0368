"""JSON of users, repositories, machine types and codespaces, with every field that GitHub's description requires.

Every function takes `base`, the address of the emulated API without a trailing slash.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
from typing import TYPE_CHECKING, Any

from codespace_kernels.emulator.models import CodespaceState, timestamp

if TYPE_CHECKING:
    from codespace_kernels.emulator.codespace import Codespace
    from codespace_kernels.emulator.models import MachineType, Repository, User

Json = dict[str, Any]

_USER_LINKS = {
    "followers_url": "/followers",
    "following_url": "/following{/other_user}",
    "gists_url": "/gists{/gist_id}",
    "starred_url": "/starred{/owner}{/repo}",
    "subscriptions_url": "/subscriptions",
    "organizations_url": "/orgs",
    "repos_url": "/repos",
    "events_url": "/events{/privacy}",
    "received_events_url": "/received_events",
}

_REPOSITORY_LINKS = {
    "archive_url": "/{archive_format}{/ref}",
    "assignees_url": "/assignees{/user}",
    "blobs_url": "/git/blobs{/sha}",
    "branches_url": "/branches{/branch}",
    "collaborators_url": "/collaborators{/collaborator}",
    "comments_url": "/comments{/number}",
    "commits_url": "/commits{/sha}",
    "compare_url": "/compare/{base}...{head}",
    "contents_url": "/contents/{+path}",
    "contributors_url": "/contributors",
    "deployments_url": "/deployments",
    "downloads_url": "/downloads",
    "events_url": "/events",
    "forks_url": "/forks",
    "git_commits_url": "/git/commits{/sha}",
    "git_refs_url": "/git/refs{/sha}",
    "git_tags_url": "/git/tags{/sha}",
    "hooks_url": "/hooks",
    "issue_comment_url": "/issues/comments{/number}",
    "issue_events_url": "/issues/events{/number}",
    "issues_url": "/issues{/number}",
    "keys_url": "/keys{/key_id}",
    "labels_url": "/labels{/name}",
    "languages_url": "/languages",
    "merges_url": "/merges",
    "milestones_url": "/milestones{/number}",
    "notifications_url": "/notifications{?since,all,participating}",
    "pulls_url": "/pulls{/number}",
    "releases_url": "/releases{/id}",
    "stargazers_url": "/stargazers",
    "statuses_url": "/statuses/{sha}",
    "subscribers_url": "/subscribers",
    "subscription_url": "/subscription",
    "tags_url": "/tags",
    "teams_url": "/teams",
    "trees_url": "/git/trees{/sha}",
}


def _links(url: str, templates: dict[str, str]) -> Json:
    return {name: url + template for name, template in templates.items()}


def _node_id(kind: str, number: int) -> str:
    return base64.b64encode(f"{kind}{number}".encode()).decode()


def user_json(user: User, base: str) -> Json:
    """Render a user as the description's `simple-user`."""
    url = f"{base}/users/{user.login}"
    return {
        "login": user.login,
        "id": user.id,
        "node_id": _node_id("User", user.id),
        "avatar_url": f"{base}/avatars/{user.id}",
        "gravatar_id": "",
        "url": url,
        "html_url": f"{base}/{user.login}",
        **_links(url, _USER_LINKS),
        "type": user.type,
        "site_admin": False,
    }


def own_user_json(user: User, base: str, repositories: int) -> Json:
    """Render the token's user as the description's `public-user`, the form for tokens without the `user` scope."""
    return {
        **user_json(user, base),
        "name": user.login.capitalize(),
        "company": None,
        "blog": "",
        "location": None,
        "email": None,
        "hireable": None,
        "bio": None,
        "public_repos": repositories,
        "public_gists": 0,
        "followers": 0,
        "following": 0,
        "created_at": user.created_at,
        "updated_at": user.created_at,
    }


def repository_json(repository: Repository, base: str) -> Json:
    """Render a repository as the description's `minimal-repository`."""
    url = f"{base}/repos/{repository.full_name}"
    return {
        "id": repository.id,
        "node_id": _node_id("Repository", repository.id),
        "name": repository.name,
        "full_name": repository.full_name,
        "private": repository.private,
        "owner": user_json(repository.owner, base),
        "html_url": f"{base}/{repository.full_name}",
        "description": None,
        "fork": False,
        "url": url,
        **_links(url, _REPOSITORY_LINKS),
    }


def full_repository_json(repository: Repository, base: str) -> Json:
    """Render a repository as the description's `full-repository`, as `GET /repos/{owner}/{repo}` answers."""
    page = f"{base}/{repository.full_name}"
    flags = ("has_issues", "has_projects", "has_wiki", "has_pages", "has_discussions", "archived", "disabled")
    counts = ("forks", "forks_count", "open_issues", "open_issues_count", "size", "stargazers_count", "watchers",
              "watchers_count", "network_count", "subscribers_count")  # fmt: skip
    return {
        **repository_json(repository, base),
        **dict.fromkeys(flags, False),
        **dict.fromkeys(counts, 0),
        **dict.fromkeys(("homepage", "language", "mirror_url", "license")),
        "clone_url": f"{page}.git",
        "git_url": f"git:{page.partition(':')[2]}.git",
        "ssh_url": f"git@127.0.0.1:{repository.full_name}.git",
        "svn_url": page,
        "default_branch": repository.default_branch,
        "visibility": "private" if repository.private else "public",
        "permissions": {"admin": True, "maintain": True, "push": True, "triage": True, "pull": True},
        "created_at": repository.created_at,
        "updated_at": repository.created_at,
        "pushed_at": repository.created_at,
    }


def found_repository_json(repository: Repository, base: str) -> Json:
    """Render a repository as the description's `repo-search-result-item`."""
    return {**full_repository_json(repository, base), "score": 1.0, "master_branch": repository.default_branch}


def branch_json(repository: Repository, name: str, base: str) -> Json:
    """Render a branch as the description's `short-branch`."""
    # Emulated branches have no commits; each has a name like one of its own.
    sha = hashlib.sha1(f"{repository.full_name}:{name}".encode(), usedforsecurity=False).hexdigest()
    url = f"{base}/repos/{repository.full_name}/commits/{sha}"
    return {"name": name, "commit": {"sha": sha, "url": url}, "protected": False}


def machine_json(machine: MachineType) -> Json:
    """Render a machine type as the description's `codespace-machine`."""
    return {
        "name": machine.name,
        "display_name": machine.display_name,
        "operating_system": "linux",
        "storage_in_bytes": machine.storage_gb * 2**30,
        "memory_in_bytes": machine.memory_gb * 2**30,
        "cpus": machine.cpus,
        "prebuild_availability": "none",
    }


def devcontainer_json(repository: Repository, path: str) -> Json:
    """Render an item of the list of devcontainers: its folder and the name in it are left out where there is none."""
    name = re.search(r'"name"\s*:\s*"([^"]*)"', repository.files[path])
    folder = path.removeprefix(".devcontainer/").rpartition("/")[0]
    return {"path": path, **({"name": folder} if folder else {}), **({"display_name": name[1]} if name else {})}


def file_json(repository: Repository, path: str, base: str) -> Json:
    """Render one file as the description's `content-file`."""
    text = repository.files[path].encode()
    url = f"{base}/repos/{repository.full_name}/contents/{path}"
    # Git's own name of a file's content: the hash of a small header and the bytes.
    sha = hashlib.sha1(b"blob %d\0" % len(text) + text, usedforsecurity=False).hexdigest()
    page = f"{base}/{repository.full_name}/blob/{repository.default_branch}/{path}"
    git = f"{base}/repos/{repository.full_name}/git/blobs/{sha}"
    return {
        "type": "file",
        "encoding": "base64",
        "size": len(text),
        "name": path.rpartition("/")[2],
        "path": path,
        "content": base64.encodebytes(text).decode(),
        "sha": sha,
        "url": url,
        "git_url": git,
        "html_url": page,
        "download_url": None,
        "_links": {"git": git, "self": url, "html": page},
    }


def codespace_json(codespace: Codespace, base: str) -> Json:
    """Render a codespace as the description's `codespace`; the public form, without `connection`."""
    url = f"{base}/user/codespaces/{codespace.name}"
    pending = codespace.pending_operation
    return {
        "id": codespace.id,
        "name": codespace.name,
        "display_name": codespace.display_name,
        "environment_id": codespace.environment_id,
        "owner": user_json(codespace.owner, base),
        "billable_owner": user_json(codespace.billable_owner, base),
        "repository": repository_json(codespace.repository, base),
        "machine": machine_json(codespace.machine_type),
        "devcontainer_path": codespace.devcontainer_path,
        "prebuild": False,
        "created_at": codespace.created_at,
        "updated_at": codespace.updated_at,
        "last_used_at": timestamp(codespace.last_used),
        "state": codespace.state.value,
        "url": url,
        "git_status": {
            "ahead": 0,
            "behind": 0,
            "has_unpushed_changes": codespace.has_unsaved_changes,
            "has_uncommitted_changes": codespace.has_unsaved_changes,
            "ref": codespace.ref,
        },
        "location": codespace.location,
        "idle_timeout_minutes": codespace.idle_timeout_minutes,
        "idle_timeout_notice": codespace.idle_timeout_notice,
        "web_url": f"{base}/codespaces/{codespace.name}",
        "machines_url": f"{url}/machines",
        "start_url": f"{url}/start",
        "stop_url": f"{url}/stop",
        "publish_url": None,
        "pulls_url": f"{base}/repos/{codespace.repository.full_name}/pulls",
        "recent_folders": [],
        # gh 2.103.3 takes null as "none is allowed" (measured), though the description allows it.
        "runtime_constraints": {"allowed_port_privacy_settings": ["private", "org", "public"]},
        "pending_operation": pending is not None,
        "pending_operation_disabled_reason": pending,
        "retention_period_minutes": codespace.retention_period_minutes,
        "retention_expires_at": _retention_end(codespace),
        "last_known_stop_notice": codespace.last_known_stop_notice,
    }


def internal_codespace_json(codespace: Codespace, base: str, *, may_connect: bool) -> Json:
    """Render the form of `internal=true`: with `connection`, null unless the codespace can be connected to.

    A token that may not connect sees no such field at all (cli/cli#7819).
    """
    public = codespace_json(codespace, base)
    if not may_connect:
        return public
    up = codespace.state is CodespaceState.AVAILABLE and codespace.inside is not None
    properties = codespace.inside.tunnel_properties() if up and codespace.inside else None
    return {**public, "connection": properties and {"tunnelProperties": properties}}


def _retention_end(codespace: Codespace) -> str | None:
    """Give the moment of automatic deletion, which is counted from the last use of a stopped codespace."""
    if codespace.state is not CodespaceState.SHUTDOWN:
        return None
    return timestamp(codespace.last_used + datetime.timedelta(minutes=codespace.retention_period_minutes))
