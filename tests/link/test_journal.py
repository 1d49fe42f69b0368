"""What a session leaves on disk, as another process finds it. How the ends go on is in `test_protocol`."""

from __future__ import annotations

import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codespace_kernels.link import journal
from codespace_kernels.link.durable import DurableSession
from codespace_kernels.link.journal import JournalError, paths_of, read_journal, settle
from codespace_kernels.link.session import MessageReceived, Session

from .ends import ID


@pytest.fixture
def session(tmp_path):
    session = DurableSession(ID, tmp_path)
    yield session
    session.leave()


def queued_of(session: DurableSession) -> list[bytes]:
    return [body for _, _, _, body in session.outgoing()[2]]


def test_what_is_queued_is_there(session, tmp_path):
    session.send(1, 1, [b"one"])
    session.send(2, 1, [b"two"])
    session.discard(1)
    session.send(1, 1, [b"x" * 200_000])
    restored = DurableSession.restored(ID, tmp_path)
    assert restored.queued_bytes == session.queued_bytes
    assert sorted(queued_of(restored)) == sorted(queued_of(session))
    restored.leave()


def test_a_record_that_is_not_whole_counts_as_none(session, tmp_path):
    session.send(1, 1, [b"one"])
    session.send(1, 1, [b"two"])
    log, _ = paths_of(tmp_path, ID)
    log.write_bytes(log.read_bytes()[:-1])
    restored = DurableSession.restored(ID, tmp_path)
    assert queued_of(restored) == queued_of(session)[:1]
    # The torn end is gone for good: what is written next stands in its place.
    restored.send(1, 1, [b"three"])
    restored.leave()
    again = DurableSession.restored(ID, tmp_path)
    assert len(queued_of(again)) == 2
    again.leave()


def test_files_are_private(session, tmp_path):
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths_of(tmp_path, ID)] == [0o600, 0o600]


def test_a_log_does_not_grow_with_what_was_sent(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "REWRITE_BYTES", 10_000)
    session = DurableSession(ID, tmp_path)
    for number in range(300):
        session.send(1, 1, [b"%d" % number * 100])
        session.discard(1)
        session.data_to_send(0.0)
        session.attach()
    log, _ = paths_of(tmp_path, ID)
    assert log.stat().st_size < 12_000
    session.leave()


def test_the_end_of_a_session_leaves_no_file(tmp_path):
    session = DurableSession(ID, tmp_path)
    session.send(1, 1, [b"one"])
    session.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_the_journal_not_the_session(session, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "_write_all", full)
    session.send(1, 1, [b"one"])
    assert session.queued_bytes > 0
    with pytest.raises(JournalError):
        DurableSession.restored(ID, tmp_path)


def test_none_is_no_journal(tmp_path):
    with pytest.raises(JournalError):
        DurableSession.restored(ID, tmp_path)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_a_changed_file_is_refused_or_sound(tmp_path, data):
    session = DurableSession(ID, tmp_path)
    session.send(1, 1, [b"one"])
    session.send(2, 2, [b"x" * 70_000])
    session.leave()
    path = data.draw(st.sampled_from(paths_of(tmp_path, ID)))
    content = bytearray(path.read_bytes())
    # The beginning is what matters of marks; a log is changed anywhere.
    at = data.draw(st.integers(0, min(len(content), 400) - 1) | st.integers(0, len(content) - 1))
    content[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
    path.write_bytes(content)
    try:
        restored = DurableSession.restored(ID, tmp_path)
    except JournalError:
        return
    whole = (b"\0\0\0\1\0\0\0\3one", b"\0\0\0\1" + (70_000).to_bytes(4, "big") + b"x" * 70_000)
    assert {*queued_of(restored)} <= {*whole}
    restored.leave()


def test_what_was_handed_over_at_the_death_counts_as_delivered_but_not_what_was_held_back(session, tmp_path):
    right = Session(ID)
    session.attach()
    right.attach()
    for number in range(6):
        right.send(1, 1 + number // 4, [b"%d" % number])
    received = []
    for _ in range(3):
        right.receive_data(session.data_to_send(0.0), 0.0)
        received += session.receive_data(right.data_to_send(0.0), 0.0)
    messages = [event for event in received if isinstance(event, MessageReceived)]
    assert len(messages) == 6
    session.delivered(messages[0])
    session.leave()
    # The third is held back: what came after it on its channel was handed over, and is not marked.
    tokens = [session.token(messages[index]) for index in (1, 3, 4, 5)]
    assert [(token.number, token.after) for token in tokens] == [(2, 0), (4, 3), (5, 0), (6, 5)]
    other = tokens[0]._replace(session=1, number=99)
    settle(tmp_path, ID, [*reversed(tokens), other])
    seen = read_journal(tmp_path, ID).seen
    assert {key: one.delivered for key, one in seen.items()} == {(1, 1): 2, (1, 2): 6}


def test_what_an_earlier_peer_sent_is_not_known_to_another_process(session):
    for name in ("a", "b"):
        right = Session(ID, software=name)
        session.attach()
        right.attach()
        right.send(1, 1, [b"one"])
        for _ in range(3):
            right.receive_data(session.data_to_send(0.0), 0.0)
            for event in session.receive_data(right.data_to_send(0.0), 0.0):
                if isinstance(event, MessageReceived):
                    last = event
        if name == "a":
            first, token = last, session.token(last)
    assert token is not None
    assert session.token(first) is None
    assert session.token(last).session != token.session
