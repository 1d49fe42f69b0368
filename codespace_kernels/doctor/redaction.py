"""Takes out of a text what nobody else may or need see: secrets, and who and what it is about.

Everything is replaced in one pass over the finished text: it does not matter by which way something came into it. A
name becomes a placeholder that is the same wherever it stands: `<owner-1>/<repo-1>`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_TEXT68 = r"[A-Za-z0-9._~+/=%-]"
"""What tokens in headers consist of (RFC 9110, section 11.2)."""

_VALUE = r"(?:\"[^\"\r\n]*\"|'[^'\r\n]*'|{bare})"
_LINE = _VALUE.format(bare=r"[\\\"']*[^\r\n\"'|`]+")
_WORD = _VALUE.format(bare=r"[\\\"']*[^\s\"',;|`]+")
"""In quotes or bare; a quote may be escaped, or be all that is left of a pair."""

_PATTERNS: tuple[tuple[str, str], ...] = (
    # Headers: whatever stands in them, to the end of the line or the quote.
    ("header", rf"(?i:\b(?:(?:proxy-)?authorization|x-github-token|(?:set-)?cookie)\b\\?[\"']?\s*[:=]\s*){_LINE}"),
    # A word with a digit in it, or a long one: "tunnel management" is none.
    ("secret", rf"\b(?i:bearer|tunnel|basic|token)\s+(?=\S*\d|\S{{24}}){_TEXT68}{{8,}}"),
    ("secret", r"\bgithub_pat_\w+"),
    ("secret", r"\bgh[a-z]_[A-Za-z0-9_]+"),
    ("secret", r"\beyJ[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)+"),
    ("secret", r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"),
    ("secret", r"\b[0-9a-f]{40,}\b"),
    ("query", r"[?&;#](?i:(?:access_|refresh_|id_)?token|key|secret|code|sig|signature|password|auth)=[^\s&;\"'|`)]+"),
    ("query", rf"\b(?i:(?:[a-z_]*_)?(?:token|secret|password|passwd|api_?key))(?:\s*=|\\?[\"']\s*:)\s*{_WORD}"),
    ("login", r"(?<=://)[^\s/\"'|`]+(?=@)"),
    ("email", r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"),
)
"""Kind of each, and what it looks like; of two that match at one place the first wins."""

_V4 = r"\d{1,3}(?:\.\d{1,3}){3}"
_V6 = r"[0-9A-Fa-f:]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*"
"""What may be one: a time of day looks like that, too."""

_ADDRESS = rf"(?<!\w){_V6}(?!\w)|(?<![\w.]){_V4}(?!\w|\.\d)"

_TELLS_NOTHING = frozenset(("root", "user", "admin", "codespace", "vscode", "runner", "jovyan", "ubuntu", "localhost"))
"""Users and hosts of these names are everybody's."""


class Redactor:
    """Knows what to take out, and by what to replace it."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._seen: dict[str, str] = {}

    def hide(self, kind: str, values: Iterable[str]) -> None:
        """Have names replaced, whole words of them, in any letter case.

        Args:
            kind: What they are; `<kind-1>` and so on stand in their place.
            values: The names; empty ones and those that tell nothing are left alone.
        """
        for value in values:
            text = value.strip()
            if text and text.lower() not in _TELLS_NOTHING and text.lower() not in self._names:
                self._names[text.lower()] = self._numbered(kind)

    def hide_repository(self, full_name: str) -> None:
        """Have a repository's owner and name replaced, together and apart."""
        owner, _, name = full_name.partition("/")
        self.hide("owner", [owner])
        self.hide("repo", [name])

    def clean(self, text: str) -> str:
        """Give the text without what is to be hidden."""
        return self._pattern().sub(self._replacement, text)

    def _numbered(self, kind: str) -> str:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"<{kind}-{self._counts[kind]}>"

    def _pattern(self) -> re.Pattern[str]:
        names = sorted(self._names, key=len, reverse=True)
        # A path may be followed by anything; a word ends where no letter or digit follows.
        words = "|".join(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])" for name in names)
        parts = [f"(?P<k{number}_{kind}>{pattern})" for number, (kind, pattern) in enumerate(_PATTERNS)]
        parts += [f"(?P<name>(?i:{words}))"] if words else []
        return re.compile("|".join([*parts, f"(?P<address>{_ADDRESS})"]))

    def _replacement(self, match: re.Match[str]) -> str:
        kind, text = (match.lastgroup or "").rpartition("_")[2], match[0]
        return _REPLACE[kind](self, text)

    def _name(self, text: str) -> str:
        # Letters that are another one's capital may match without being the same in lower case.
        return self._names.get(text.lower(), "<name>")

    def _address(self, text: str) -> str:
        shown = text.rstrip(".")
        try:
            address = ipaddress.ip_address(shown)
        except ValueError:
            return text
        if address.is_loopback or address.is_unspecified:
            return text
        return self._same("address", shown) + text[len(shown) :]

    def _same(self, kind: str, text: str) -> str:
        if text not in self._seen:
            self._seen[text] = self._numbered(kind)
        return self._seen[text]


def _header(_: Redactor, text: str) -> str:
    return re.match(r"[^:=]*[:=]", text)[0] + " <secret>"  # type: ignore[index]  # the pattern has one of them


def _query(_: Redactor, text: str) -> str:
    return re.match(r"[^:=]*[:=]", text)[0] + "<secret>"  # type: ignore[index]  # as above


_REPLACE: dict[str, Callable[[Redactor, str], str]] = {
    "header": _header,
    "query": _query,
    "secret": lambda _, __: "<secret>",
    "login": lambda _, __: "<login>",
    "email": lambda redactor, text: redactor._same("email", text),
    "name": Redactor._name,
    "address": Redactor._address,
}
