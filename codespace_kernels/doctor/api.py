"""GitHub's REST API as a diagnosis wants it: each question is asked once, and refusals are answers as well."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import httpx

from codespace_kernels.errors import GitHubUnavailableError
from codespace_kernels.github.client import HEADERS
from codespace_kernels.github.hosts import host_of, is_loopback
from codespace_kernels.github.refusals import Refusal, json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codespace_kernels.errors import CodespaceKernelsError
    from codespace_kernels.github.tokens import Token
    from codespace_kernels.target import Account

SECONDS = 12.0
"""For one answer. GitHub itself gives up after ten."""


@dataclasses.dataclass
class Api:
    """The API of one account.

    Attributes:
        account: Whose.
        header_names: Names of all headers that its answers had.
        statuses: Status of each answer, by method and path.
    """

    account: Account
    header_names: set[str] = dataclasses.field(default_factory=set)
    statuses: dict[str, int] = dataclasses.field(default_factory=dict)
    _http: httpx.AsyncClient | None = None

    async def ask(
        self, path: str, token: Token | None, params: Mapping[str, str] | None = None, *, shown: str = ""
    ) -> httpx.Response:
        """Send a GET.

        Args:
            path: Below the API's address, with a leading slash.
            token: Sent where there is one.
            params: Query.
            shown: What to call the question where the path names something private.

        Raises:
            GitHubUnavailableError: Nobody answers.
        """
        headers = {"Authorization": f"Bearer {token.value}"} if token else {}
        try:
            response = await self._client().get(self.account.api_url + path, params=params, headers=headers)
        except httpx.TimeoutException:
            raise self._silent(f"no answer within {SECONDS:g} s") from None
        except httpx.RequestError as error:
            raise self._silent(" ".join(str(error).split()) or type(error).__name__) from None
        self.header_names |= set(response.headers)
        self.statuses[f"GET {shown or path}"] = response.status_code
        return response

    def refusal(self, response: httpx.Response, what: str, token: Token) -> CodespaceKernelsError:
        """Give the error that a refusal is to everybody else."""
        return Refusal(response, what, host_of(self.account.api_url), token).error()

    @staticmethod
    def document(response: httpx.Response | None) -> dict[str, Any]:
        """Give an answer's JSON object; empty where there is none."""
        return json_object(response) if response is not None else {}

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            # As the client has it that everything else uses: what fails there must fail here.
            trust_env = not is_loopback(self.account.api_url)
            self._http = httpx.AsyncClient(headers=HEADERS, timeout=SECONDS, trust_env=trust_env)
        return self._http

    def _silent(self, why: str) -> GitHubUnavailableError:
        host = httpx.URL(self.account.api_url).netloc.decode()
        advice = "Start the emulator, or unset GITHUB_API_URL." if is_loopback(self.account.api_url) else ""
        return GitHubUnavailableError(f"{host} does not answer ({why}). {advice or 'Check your network and proxy.'}")
