"""The one exception tree of the package.

The text of every error is written for the person at the notebook: what happened, to what, and what to do next, in one
or two sentences. JupyterLab shows `str(exception)` as it is; VS Code shows the last line of stderr that contains
"Error", so class names end in `Error`.

    CodespaceKernelsError
    ├── SettingsError                 a setting, flag or argument that cannot be used
    ├── WaitTimeoutError              a bounded wait ended; says what for, and how long
    ├── AuthError
    │   ├── NoTokenError
    │   ├── BadTokenError
    │   ├── MissingScopeError
    │   ├── SsoRequiredError
    │   └── TokenCannotConnectError   lists codespaces, but gets no tunnel (fine-grained tokens)
    ├── GitHubError                   any other refusal or failure of the REST API
    │   ├── NotFoundError
    │   ├── PermissionsRequiredError
    │   ├── PaymentRequiredError
    │   ├── RateLimitError
    │   ├── PendingOperationError
    │   └── GitHubUnavailableError    5xx, or nobody answers
    ├── WorkspaceError
    │   ├── WorkspaceNotFoundError
    │   ├── WorkspaceStoppedError
    │   ├── WorkspaceNotCreatedError
    │   └── WorkspaceFailedError      a state that no waiting will mend
    ├── WorkspaceConnectionError              the way to a workspace
    │   ├── TunnelError
    │   ├── SshError
    │   ├── HostKeyError
    │   └── NoSshServerError
    ├── RemoteServerError             the Jupyter server in the workspace
    │   ├── NoJupyterError
    │   └── LinkError
    ├── KernelError
    │   ├── KernelNotFoundError
    │   └── KernelStartError
    ├── BrokerError
    └── EmulatorError
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator


class CodespaceKernelsError(Exception):
    """Root of all errors of this package.

    Attributes:
        exit_code: What a command-line verb that fails with this error returns.
        url: A page that a person must open to go on; empty where there is none. The text names it too.
    """

    exit_code: ClassVar[int] = 1
    url: str = ""

    def to_json(self) -> dict[str, Any]:
        """Give the form in which an error crosses a process border (see `error_from_json`)."""
        data = {"type": type(self).__name__, "message": str(self)}
        return {**data, "url": self.url} if self.url else data


class SettingsError(CodespaceKernelsError):
    """A setting, a flag or an argument cannot be used."""

    exit_code = 2


class WaitTimeoutError(CodespaceKernelsError):
    """A bounded wait ended before what it waited for."""

    @classmethod
    def after(cls, what: str, seconds: float, advice: str = "") -> WaitTimeoutError:
        """Build the error from what was waited for and how long (seconds)."""
        text = f"Gave up after {seconds:g} s waiting for {what}."
        return cls(f"{text} {advice}".rstrip())


class AuthError(CodespaceKernelsError):
    """GitHub does not accept who we are, or not for this."""

    exit_code = 4


class NoTokenError(AuthError):
    """No token was found anywhere."""


class BadTokenError(AuthError):
    """GitHub refuses the token itself (401)."""


class MissingScopeError(AuthError):
    """The token lacks a scope or permission."""


class SsoRequiredError(AuthError):
    """The organisation wants the token authorised for single sign-on."""


class TokenCannotConnectError(AuthError):
    """The token can list codespaces but is given no tunnel to them."""


class GitHubError(CodespaceKernelsError):
    """GitHub's REST API refused or failed.

    Attributes:
        status: The HTTP status of the answer; 0 where there was none.
    """

    status: int = 0


class NotFoundError(GitHubError):
    """The resource does not exist, or is hidden from this account (404)."""


class PermissionsRequiredError(GitHubError):
    """The devcontainer asks for permissions that a person must grant on a web page."""


class PaymentRequiredError(GitHubError):
    """A spending limit or missing payment method stops this (402)."""


class RateLimitError(GitHubError):
    """GitHub's rate limit is used up."""


class PendingOperationError(GitHubError):
    """Another operation on the codespace is still running."""


class GitHubUnavailableError(GitHubError):
    """GitHub answers with a server error, or does not answer."""


class WorkspaceError(CodespaceKernelsError):
    """Something about the place where the kernel is to run."""


class WorkspaceNotFoundError(WorkspaceError):
    """No workspace has this name."""

    exit_code = 3


class WorkspaceStoppedError(WorkspaceError):
    """The workspace is stopped and this request may not start it."""


class WorkspaceNotCreatedError(WorkspaceError):
    """No workspace is like the recipe, and this request may not make the one that its kernelspec allows."""


class WorkspaceFailedError(WorkspaceError):
    """The workspace is in a state that no waiting will mend.

    Attributes:
        may_pass: Whether the provider itself does not know more, so that it may be found well later.
    """

    may_pass: bool = False


class WorkspaceConnectionError(CodespaceKernelsError):
    """The way to the workspace could not be had or was lost."""


class TunnelError(WorkspaceConnectionError):
    """The dev tunnel (management API, relay, its SSH layer or the codespace's services)."""


class SshError(WorkspaceConnectionError):
    """The SSH session inside the workspace."""


class HostKeyError(WorkspaceConnectionError):
    """A host key is not the one that was published or pinned."""


class NoSshServerError(WorkspaceConnectionError):
    """The image has no SSH server."""


class RemoteServerError(CodespaceKernelsError):
    """The Jupyter server in the workspace."""


class NoJupyterError(RemoteServerError):
    """The workspace has no Jupyter server and one could not be installed."""


class LinkError(RemoteServerError):
    """The link to the Jupyter server broke its protocol or cannot be had."""


class KernelError(CodespaceKernelsError):
    """A kernel."""


class KernelNotFoundError(KernelError):
    """The workspace has no such kernel or kernelspec."""

    exit_code = 3


class KernelStartError(KernelError):
    """The kernel did not start."""


class BrokerError(CodespaceKernelsError):
    """The broker could not be started or reached, or failed inside."""


class EmulatorError(CodespaceKernelsError):
    """The emulator could not be started, reached, or told what to do."""


@contextlib.contextmanager
def naming(subject: str, words: str) -> Iterator[None]:
    """Have every error of this package name what it is about.

    Args:
        subject: What an error's text must name.
        words: A sentence that does, added where it is not named.
    """
    try:
        yield
    except CodespaceKernelsError as error:
        if subject not in str(error):
            error.args = (f"{error} {words}", *error.args[1:])
        raise


def _all_subclasses(cls: type[CodespaceKernelsError]) -> dict[str, type[CodespaceKernelsError]]:
    found = {cls.__name__: cls}
    for sub in cls.__subclasses__():
        found.update(_all_subclasses(sub))
    return found


def error_from_json(data: Any) -> CodespaceKernelsError:
    """Rebuild an error that crossed a process border; an unknown type becomes the root type, as does what is none."""
    data = data if isinstance(data, dict) else {}
    cls = _all_subclasses(CodespaceKernelsError).get(str(data.get("type")), CodespaceKernelsError)
    error = cls(str(data.get("message") or "The broker reported an error without a text."))
    error.url = str(data.get("url") or "")
    return error
