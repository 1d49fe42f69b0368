"""Finds out when a kernel can be given its first request, and lifts a limit of its publisher.

Requests are held until the subscription to iopub is in place: what they print would be lost otherwise. A
`kernel_info_request` goes out on control, which newer kernels answer while they are busy, and on shell, which all
kernels answer; the first message on iopub, be it that request's status or an XPUB's welcome, is the sign.

A kernel's publisher drops messages without a word when a subscriber falls 1000 behind (ZMQ's default high-water mark),
the closing `idle` among them. On a busy machine that happens to the fastest of readers: of 62 bursts of 20 000
messages, 11 lost up to 997 although our socket has no mark and its buffer is large; with the limit lifted, none of 42.
No option of ipykernel reaches that mark, so a kernel that calls itself ipython is asked to lift it, by one silent
execute before the first request.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import pkgutil
import time
import uuid
from typing import Any, Dict, List, Optional, Union

IDENTITY = b"codespace-kernels-probe"
"""Routing identity of our own requests, by which their answers are told from the clients'."""

SESSION = "codespace-kernels-probe-"
"""How the sessions of our own requests begin. A kernel that was busy answers some after their asker is gone, and its
successor must know them, too: nobody else would know what they belong to."""

DELIMITER = b"<IDS|MSG>"

_MARK = SESSION.encode()

AGAIN = 0.02
"""Seconds after an answer until the next question, when the answer's status did not come on iopub."""

LIMIT = 1.0
"""Seconds after iopub's connection, or the first message on it, until requests go out without an answer to ours.

It is only waited for where a kernel is busy and does not answer on control meanwhile.
"""

PUBLISHER_LIMIT = 1000000
"""Messages that the publisher of an IPython kernel keeps for a subscriber. Limited: one that hangs costs memory."""


def lifting_code() -> str:
    """Give what lifts the limit of the IPython kernel that executes it, and leaves no name behind."""
    source = (pkgutil.get_data(__package__, "publisher_limit.py") or b"").decode()
    call = "names['lift'](get_ipython().kernel.iopub_socket.io_thread, %d)" % PUBLISHER_LIMIT
    return "(lambda names: (exec(%r, names), %s) and None)({'__name__': '<publisher limit>'})" % (source, call)


class Probe:
    """The questions to one kernel process, and what is known from their answers.

    Args:
        info: A connection file's content.

    Attributes:
        ask_at: When to send `question`, monotonic seconds; None for not now.
        ready_at: When to stop waiting; None while there is no reason to.
        ready: Whether requests may go out.
    """

    def __init__(self, info: Dict[str, Any]) -> None:
        self.ask_at: Optional[float] = time.monotonic()
        self.ready_at: Optional[float] = None
        self.ready = False
        self._info = info
        self._session = SESSION + uuid.uuid4().hex
        self._subscribed = False
        self._answer: Optional[Dict[str, Any]] = None

    def question(self) -> List[bytes]:
        """Give the request that is to be sent, on control and the first time on shell too."""
        self.ask_at = None
        return self._request("kernel_info_request", {})

    def last_request(self) -> Optional[List[bytes]]:
        """Give a request for the shell channel that comes before all others, if this kernel needs one."""
        if self._answer is None or self._answer.get("implementation") != "ipython":
            return None
        options = {"silent": True, "store_history": False, "allow_stdin": False, "stop_on_error": False}
        return self._request("execute_request", {"code": lifting_code(), "user_expressions": {}, **options})

    def wait_again(self) -> None:
        """Give the last request a while to be answered."""
        self.ask_at = None
        self.ready_at = time.monotonic() + LIMIT

    def is_last_answer(self, parts: List[bytes]) -> bool:
        """Tell whether an answer is the last request's: the only one of ours that executes something."""
        return any(b'"execute_reply"' in part for part in parts)

    def connected(self) -> None:
        """Note that iopub is connected."""
        self._wait_until(time.monotonic() + LIMIT)

    def published(self) -> None:
        """Note a message on iopub."""
        self._subscribed = True
        if self._answer is None:
            self._wait_until(time.monotonic() + LIMIT)
        else:
            self.ready = True

    def answered(self, parts: List[bytes]) -> None:
        """Note an answer to one of our requests."""
        if self._answer is None:
            try:
                self._answer = dict(json.loads(parts[parts.index(DELIMITER) + 5].decode()))
            except (ValueError, IndexError, TypeError):
                self._answer = {}
        if self._subscribed:
            self.ready = True
        else:
            # It is up and answers, but the answer's status has not come: the subscription was too late for it.
            self.ask_at = time.monotonic() + AGAIN

    def is_answer_to_us(self, header: bytes, parent: bytes) -> bool:
        """Tell whether an iopub message is about our subscription, or requests of this or any other probe."""
        return _MARK in parent or b'"iopub_welcome"' in header

    def _wait_until(self, at: float) -> None:
        self.ready_at = at if self.ready_at is None else min(self.ready_at, at)

    def _request(self, msg_type: str, content: Dict[str, Any]) -> List[bytes]:
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": msg_type,
            "session": self._session,
            "username": "",
            "date": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
            "version": "5.3",
        }
        signed = [json.dumps(header).encode(), b"{}", b"{}", json.dumps(content).encode()]
        return [IDENTITY, DELIMITER, sign(self._info, signed), *signed]


def sign(info: Dict[str, Any], parts: List[bytes]) -> bytes:
    """Give the signature of header, parent, metadata and content by a connection file's key."""
    key = as_bytes(info.get("key", b""))
    if not key:
        return b""
    digest = str(info.get("signature_scheme", "hmac-sha256")).partition("-")[2]
    mac = hmac.new(key, digestmod=getattr(hashlib, digest))
    for part in parts:
        mac.update(part)
    return mac.hexdigest().encode()


def as_bytes(value: Union[str, bytes]) -> bytes:
    """Give a key of a connection file as bytes."""
    return value.encode() if isinstance(value, str) else value
