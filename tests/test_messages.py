import pytest

from codespace_kernels.messages import DELIMITER, MalformedMessageError, Message, Signer

HEADER = b'{"msg_id":"1","msg_type":"execute_request"}'
MESSAGE = Message((b"one", b"two"), HEADER, b"{}", b"{}", b'{"code":"pass"}', (b"\x00\xff", b""))


def test_round_trip_keeps_identities_and_buffers():
    signer = Signer(b"key")
    assert signer.unpack(signer.pack(MESSAGE)) == MESSAGE


def test_same_bytes_as_jupyter_client():
    from jupyter_client.session import Session

    session = Session(key=b"key")
    idents, frames = session.feed_identities(Signer(b"key").pack(MESSAGE))
    message = session.deserialize(frames, content=True)
    assert idents == [b"one", b"two"]
    assert message["content"]["code"] == "pass"


def test_wrong_signature_is_refused():
    frames = Signer(b"other").pack(MESSAGE)
    with pytest.raises(MalformedMessageError, match="signature"):
        Signer(b"key").unpack(frames)
    assert Signer(b"key").unpack(frames, check=False) == MESSAGE


@pytest.mark.parametrize("frames", [[], [b"x"], [DELIMITER, b"", b"{}", b"{}", b"{}"]])
def test_too_few_frames(frames):
    with pytest.raises(MalformedMessageError):
        Signer(b"").unpack(frames)


def test_unknown_scheme():
    with pytest.raises(ValueError, match="hmac-rot13"):
        Signer(b"k", "hmac-rot13")


def test_key_is_not_shown():
    assert "secret" not in repr(Signer(b"secret"))


@pytest.mark.parametrize("header", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000, b"{}" + b" " * (32 << 20)])
def test_documents_that_are_bombs_are_refused_by_name(header):
    with pytest.raises(MalformedMessageError):
        Message((), header, b"{}", b"{}", b"{}").header_dict()
