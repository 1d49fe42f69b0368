"""How often the server is waited for: a key exchange that was guessed, a login with what comes behind it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from codespace_kernels.errors import SshError
from codespace_kernels.ssh.connection import SshConnection
from codespace_kernels.ssh.guess import FirstChoices, GuessedKeyExchange
from codespace_kernels.ssh.login import log_in
from codespace_kernels.ssh.threads import run_blocking
from codespace_kernels.ssh.wire import POLL_SECONDS, SocketWire
from tests.ssh.conftest import NO_KEEPALIVE, WAIT, make_key, start_sshd, stop_sshd


class GatedWire(SocketWire):
    """Gives what came only while its gate is open, and counts what was sent."""

    def __init__(self, sock) -> None:
        super().__init__(sock)
        self.gate = threading.Event()
        self.gate.set()
        self.sent = 0

    def recv_any(self) -> bytes:
        if not self.gate.wait(POLL_SECONDS):
            raise TimeoutError
        return super().recv_any()

    _receive = recv_any

    def send_nowait(self, data: bytes) -> int:
        self.sent += 1
        return super().send_nowait(data)

    async def sends(self, packets: int) -> None:
        """Wait until so many packets were sent."""
        async with asyncio.timeout(WAIT):
            while self.sent < packets:
                await asyncio.sleep(0.005)


def wire_to(server) -> GatedWire:
    return GatedWire(server.wire()._sock)


async def test_login_and_first_channel_wait_for_the_server_once(sshd):
    wire = wire_to(sshd)
    session = await SshConnection.negotiate(wire)
    # A reader that waits already may give one more thing: what the server said of itself behind its keys.
    wire.gate.clear()
    before = wire.sent
    entering = asyncio.create_task(
        SshConnection.log_in(
            session,
            username=sshd.username,
            key=sshd.user_key,
            check_host_key=lambda key: None,
            description="test",
            keepalive=NO_KEEPALIVE,
        )
    )
    # The service, the authentication, the channel.
    await wire.sends(before + 3)
    wire.gate.set()
    connection = await entering
    opened = wire.sent
    assert (await connection.run("echo here")).stdout == b"here\n"
    # Nothing was asked for before the command: its channel was there.
    assert opened == before + 3
    assert (await connection.run("echo again")).stdout == b"again\n"
    await connection.close()


async def test_a_login_step_by_step(sshd):
    wire = wire_to(sshd)
    session = await SshConnection.negotiate(wire)
    wire.gate.clear()
    before = wire.sent
    entering = asyncio.create_task(
        run_blocking("login", WAIT, lambda: log_in(session, sshd.username, sshd.user_key, WAIT, waits=True))
    )
    await wire.sends(before + 1)
    # Only the service was asked for, and nothing more will be before the answer.
    wire.gate.set()
    await entering
    assert (wire.sent, session.is_authenticated()) == (before + 2, True)
    session.close()
    session.join(WAIT)


async def test_a_login_that_is_refused_says_so_although_more_was_asked_for(sshd, tmp_path):
    session = await SshConnection.negotiate(sshd.wire())
    with pytest.raises(SshError, match="does not accept our key for user"):
        await SshConnection.log_in(
            session,
            username=sshd.username,
            key=make_key(tmp_path / "other"),
            check_host_key=lambda key: None,
            description="test",
            keepalive=NO_KEEPALIVE,
        )
    session.join(WAIT)
    assert not session.is_alive()


KEX = ("ecdh-sha2-nistp384", "ecdh-sha2-nistp256")
HOST_KEY = "ssh-ed25519"


@pytest.fixture(scope="module")
def particular_sshd(tmp_path_factory):
    """A server that names first what we could, too."""
    folder = tmp_path_factory.mktemp("sshd")
    server = start_sshd(folder, more=f"KexAlgorithms {','.join(KEX)}\n")
    yield server
    stop_sshd(server)


async def exchanged(server, guess, *, gated) -> GuessedKeyExchange:
    """Exchange keys; where `gated`, without hearing anything but the server's version before our part is done."""
    wire = wire_to(server)
    session = GuessedKeyExchange(wire, guess)
    if gated:
        # The server speaks only when it has our version, so its proposal cannot come along with its own.
        start = threading.Thread(target=session.start_client, kwargs={"timeout": WAIT})
        start.start()
        # Version, proposal, first packet: all before the first answer can be there.
        await wire.sends(3)
        await run_blocking("keys", WAIT, start.join)
    else:
        await run_blocking("keys", WAIT, session.start_client, None, WAIT)
    return session


@pytest.mark.parametrize(
    "guess",
    [
        None,
        FirstChoices(KEX[0], HOST_KEY),
        FirstChoices(KEX[1], HOST_KEY),
        FirstChoices(KEX[0], "ecdsa-sha2-nistp256"),
        FirstChoices("diffie-hellman-group14-sha256", "rsa-sha2-512"),
    ],
    ids=["none", "right", "other-kex", "other-host-key", "neither"],
)
async def test_a_guess_right_or_wrong_ends_in_a_session(particular_sshd, guess):
    session = await exchanged(particular_sshd, guess, gated=guess is not None)
    try:
        assert session.first_choices == FirstChoices(KEX[0], HOST_KEY)
        assert session.get_remote_server_key().asbytes() == particular_sshd.host_key.asbytes()
        log_in(session, particular_sshd.username, particular_sshd.user_key, WAIT)
        assert session.is_authenticated()
        # Of a later exchange nothing is guessed.
        await run_blocking("keys", WAIT, session.renegotiate_keys)
    finally:
        session.close()
        session.join(WAIT)


async def test_a_right_guess_saves_the_wait_for_the_proposal(particular_sshd):
    packets = {}
    for guess in (None, FirstChoices(KEX[0], HOST_KEY), FirstChoices(KEX[1], HOST_KEY)):
        session = await exchanged(particular_sshd, guess, gated=guess is not None)
        packets[guess] = session.sock.sent
        session.close()
        session.join(WAIT)
    none, right, wrong = packets.values()
    # A wrong guess costs one packet and nothing else.
    assert (right, wrong) == (none, none + 1)


@pytest.mark.parametrize(
    "guess",
    [
        FirstChoices("diffie-hellman-group1-sha1", HOST_KEY),
        FirstChoices(KEX[0], "ssh-dss"),
        FirstChoices("diffie-hellman-group-exchange-sha256", HOST_KEY),
        FirstChoices("", ""),
    ],
)
async def test_what_we_would_not_accept_is_not_guessed(particular_sshd, guess):
    plain = await exchanged(particular_sshd, None, gated=False)
    session = await exchanged(particular_sshd, guess, gated=False)
    assert (session.sock.sent, session.preferred_kex, session.preferred_keys) == (
        plain.sock.sent,
        plain.preferred_kex,
        plain.preferred_keys,
    )
    for one in (plain, session):
        one.close()
        one.join(WAIT)
