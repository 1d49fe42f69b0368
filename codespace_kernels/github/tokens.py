"""A GitHub token that cannot be printed by accident, and what finds one."""

from __future__ import annotations

import dataclasses
import re
from typing import Protocol

from codespace_kernels.errors import BadTokenError

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
"""What may stand behind `Bearer` (RFC 6750); every GitHub token is of it."""


@dataclasses.dataclass(frozen=True)
class Token:
    """A token and where it came from.

    Attributes:
        value: The secret. Never part of a text; `repr` leaves it out.
        source: For people: "GH_TOKEN", "the system keyring", …. Stands in error texts in place of the token.

    Raises:
        BadTokenError: The value holds characters that no token has, such as a line break.
    """

    value: str = dataclasses.field(repr=False)
    source: str

    def __post_init__(self) -> None:
        """Refuse what would break an HTTP header."""
        if not is_token_text(self.value):
            raise BadTokenError(
                f"The token from {self.source} is empty or holds characters that no GitHub token has. "
                "Copy it again, without quotes or line breaks."
            )

    @property
    def fine_grained(self) -> bool:
        """Whether it is a fine-grained personal token: such tokens are given no tunnel (cli/cli#7819)."""
        return self.value.startswith("github_pat_")


def is_token_text(value: str) -> bool:
    """Tell whether a text can be a token at all."""
    return _TOKEN.fullmatch(value) is not None


class TokenSource(Protocol):
    """One place where a token may be."""

    @property
    def name(self) -> str:
        """For people, in a list of what was tried: "GH_TOKEN", "`gh auth token`"."""

    async def find(self) -> Token | None:
        """Look for a token; None where this place has none. A place that is broken has none.

        Raises:
            BadTokenError: The person put something there that is no token.
        """


class TokenFinder(Protocol):
    """What a client asks for its token."""

    async def find(self) -> Token:
        """Give the token to use now.

        Raises:
            AuthError: There is none, or none that can be used.
        """
