"""Ends of different versions: the highest that both have, or an error that says which end is the old one."""

from __future__ import annotations

import json

import pytest

from codespace_kernels import __version__
from codespace_kernels.errors import LinkError
from codespace_kernels.link import frames
from codespace_kernels.link.client import LinkClient
from codespace_kernels.link.session import Connected, Failed, Session

ID = "0123456789abcdef"


def meet(left: tuple[int, int], right: tuple[int, int]) -> tuple[list[object], list[object]]:
    """Let two ends say hello; give what each hears."""
    ends = Session(ID, software="1.0", minors=left), Session(ID, software="2.0", minors=right)
    for end in ends:
        end.attach()
    hellos = [end.data_to_send(0.0) for end in ends]
    return ends[0].receive_data(hellos[1], 0.0), ends[1].receive_data(hellos[0], 0.0)


@pytest.mark.parametrize(
    ("left", "right", "agreed"), [((0, 1), (0, 1), 1), ((0, 0), (0, 5), 0), ((1, 3), (2, 9), 3), ((2, 2), (0, 2), 2)]
)
def test_both_ends_use_the_highest_version_that_both_have(
    left: tuple[int, int], right: tuple[int, int], agreed: int
) -> None:
    assert meet(left, right) == ([Connected(False, "2.0", agreed)], [Connected(False, "1.0", agreed)])


def test_ends_without_a_common_version_know_which_one_is_old() -> None:
    (older,), (newer,) = meet((0, 1), (2, 3))
    assert isinstance(older, Failed)
    assert isinstance(newer, Failed)
    assert older.version is not None
    assert newer.version is not None
    assert older.version.peer_is_newer
    assert not newer.version.peer_is_newer
    assert "(codespace-kernels 2.0) speaks version 1.2 to 1.3 of the link, this end 1.0 to 1.1" in older.reason


class Peer:
    """A stream whose other end says one thing."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    async def read(self, max_bytes: int = 262144) -> bytes:
        data, self._said = self._said, b""
        return data

    async def write(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        pass


def hello(**fields: object) -> bytes:
    good = json.loads(frames.encode_hello(frames.Hello(ID, "e", "", 0, software="9.9"))[5:])
    payload = json.dumps({**good, **fields}).encode()
    return len(payload).to_bytes(4, "big") + b"\1" + payload


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"major": 2}, "Update codespace-kernels on this machine"),
        ({"min_minor": 7, "max_minor": 9}, "Update codespace-kernels on this machine"),
        ({"min_minor": -3, "max_minor": -1}, "stop the codespace with `codespace-kernels stop`"),
    ],
)
async def test_a_person_is_told_what_to_update(fields: dict[str, object], advice: str) -> None:
    client = LinkClient()
    said = hello(session=client._session.session_id, **fields)
    with pytest.raises(LinkError) as raised:
        await client.attach(Peer(said))
    assert advice in str(raised.value)
    assert "codespace-kernels 9.9" in str(raised.value)
    assert __version__ in str(raised.value)
    await client.close()
