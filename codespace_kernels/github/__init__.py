"""GitHub's REST API for codespaces: client, authentication, models.

It knows nothing of the layers above it.
"""

from codespace_kernels.github.auth import TokenChain, find_gh, gh_account, gh_environment, token_sources
from codespace_kernels.github.client import GitHubClient
from codespace_kernels.github.codespaces import CodespacesApi
from codespace_kernels.github.hosts import account_from_environment, host_of, is_github_hosted, is_loopback
from codespace_kernels.github.models import (
    Codespace,
    CodespaceState,
    CreationTerms,
    Devcontainer,
    Machine,
    Phase,
    Repository,
    TunnelProperties,
)
from codespace_kernels.github.retry import Attempt, Backoff, RetryPolicy
from codespace_kernels.github.tokens import Token, TokenFinder, TokenSource
from codespace_kernels.github.waiting import ConnectableWait, Pace, wait_until_created

__all__ = [
    "Attempt",
    "Backoff",
    "Codespace",
    "CodespaceState",
    "CodespacesApi",
    "ConnectableWait",
    "CreationTerms",
    "Devcontainer",
    "GitHubClient",
    "Machine",
    "Pace",
    "Phase",
    "Repository",
    "RetryPolicy",
    "Token",
    "TokenChain",
    "TokenFinder",
    "TokenSource",
    "TunnelProperties",
    "account_from_environment",
    "find_gh",
    "gh_account",
    "gh_environment",
    "host_of",
    "is_github_hosted",
    "is_loopback",
    "token_sources",
    "wait_until_created",
]
