"""A key exchange that costs one round trip instead of two: its first packet is sent before the peer's proposal came.

RFC 4253, section 7: a party that knows what the other one prefers may say in its proposal that its first packet
follows. The guess is right where both name the same key exchange and the same host key algorithm first; else the peer
drops that packet, and the exchange goes on as if there had been none.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from paramiko.common import MSG_KEXINIT

from codespace_kernels.ssh.session import SshSession

if TYPE_CHECKING:
    from paramiko.message import Message

    from codespace_kernels.ssh.wire import Wire

    class _SshSession(SshSession):
        """What paramiko's stubs leave out of its transport."""

        _kex_info: dict[str, Any]
        _preferred_kex: tuple[str, ...]
        _preferred_keys: tuple[str, ...]

        def _send_kex_init(self) -> None: ...
        def _negotiate_keys(self, m: Message) -> None: ...
        def _parse_kex_init(self, m: Message) -> None: ...
        def _really_parse_kex_init(self, m: Message, ignore_first_byte: bool = ...) -> dict[str, Any]: ...
        def _expect_packet(self, *ptypes: int) -> None: ...

else:
    _SshSession = SshSession

_REPLY = 31
"""SSH_MSG_KEXDH_REPLY and SSH_MSG_KEX_ECDH_REPLY: the answer to the only packet that we send in an exchange."""

_NO_FOLLOW, _FOLLOWS = struct.pack(">?I", False, 0), struct.pack(">?I", True, 0)
"""The end of a proposal: whether the first packet follows, and a number that means nothing."""


class FirstChoices(NamedTuple):
    """What a server names first in its proposal.

    Attributes:
        kex: The key exchange.
        host_key: The host key algorithm.
    """

    kex: str
    host_key: str


class GuessedKeyExchange(_SshSession):
    """A session that may know what its server will name first.

    The guess changes which of the algorithms that we accept is proposed first, and nothing else: no other one is taken.

    Args:
        wire: As `SshSession` has it.
        guess: What the server is expected to name first; not used where we would not accept it.

    Attributes:
        first_choices: What the server named first; None before its proposal came.
    """

    def __init__(self, wire: Wire, guess: FirstChoices | None = None) -> None:
        super().__init__(wire)
        self.first_choices: FirstChoices | None = None
        self._guess = guess if guess is not None and self._is_usable(guess) else None
        self._begun: Any = None
        if self._guess is not None:
            self._preferred_kex = _first(self._guess.kex, self._preferred_kex)
            self._preferred_keys = _first(self._guess.host_key, self._preferred_keys)

    def _is_usable(self, guess: FirstChoices) -> bool:
        # A group exchange asks for the group first.
        acceptable = guess.kex in self._preferred_kex and "group-exchange" not in guess.kex
        return acceptable and guess.host_key in self._preferred_keys

    def _send_kex_init(self) -> None:
        guessing = self._guess is not None and not self.initial_kex_done
        if not guessing:
            super()._send_kex_init()
            return
        assert self._guess is not None
        super()._send_kex_init()
        self._begun = self._kex_info[self._guess.kex](self)
        self._begun.start_kex()

    def _send_message(self, message: Message) -> None:
        data = message.asbytes()
        if self._guess is not None and not self.initial_kex_done and data[0] == MSG_KEXINIT:
            assert data.endswith(_NO_FOLLOW)
            message = type(message)(data.removesuffix(_NO_FOLLOW) + _FOLLOWS)
            # Both sides sign what was sent.
            self.local_kex_init = self._latest_kex_init = message.asbytes()
        super()._send_message(message)

    def _really_parse_kex_init(self, m: Message, ignore_first_byte: bool = False) -> dict[str, Any]:
        parsed = super()._really_parse_kex_init(m, ignore_first_byte)
        if not ignore_first_byte and self.first_choices is None:
            self.first_choices = FirstChoices(parsed["kex_algo_list"][0], parsed["server_key_algo_list"][0])
        return parsed

    def _negotiate_keys(self, m: Message) -> None:
        begun, self._begun = self._begun, None
        if begun is None:
            super()._negotiate_keys(m)
            return
        with self.clear_to_send_lock:
            self.clear_to_send.clear()
        self._parse_kex_init(m)
        if self.first_choices == self._guess:
            self.kex_engine = begun
            self._expect_packet(_REPLY)
        else:
            assert self.kex_engine is not None
            self.kex_engine.start_kex()


def _first(choice: str, others: tuple[str, ...]) -> tuple[str, ...]:
    return (choice, *(other for other in others if other != choice))
