"""Somebody who stands on the way to a codespace, played by real servers, is refused before anything is told him."""

from __future__ import annotations

import os
import sys

import pytest

from codespace_kernels.errors import HostKeyError
from codespace_kernels.providers.github import pin_name
from codespace_kernels.ssh.hostkeys import HostKeyPins
from codespace_kernels.ssh.keys import load_or_create_user_key
from codespace_kernels.target import Account
from tests.ssh.conftest import make_key, start_sshd, stop_sshd

GH = f"""#!{sys.executable}
# What a relay that leads elsewhere makes of `gh codespace ssh`: gh verifies no host key.
import os, socket, sys, threading
open(sys.argv[0] + ".asked", "a").write("asked\\n")
if "--config" in sys.argv:
    print("Host x\\n  User " + os.environ["MIDDLE_USER"])
    sys.exit()
middle = socket.create_connection(("127.0.0.1", int(os.environ["MIDDLE_PORT"])))
def copy(read, write, end):
    while data := read(65536):
        write(data)
    end()
threading.Thread(target=copy, args=(middle.recv, lambda data: os.write(1, data), lambda: os._exit(0)), daemon=True).start()
copy(lambda size: os.read(0, size), middle.sendall, middle.close)
"""  # noqa: E501  (a program)


@pytest.fixture
async def running(provider, name):
    await provider.ensure_running(name, print)
    return name


@pytest.fixture
def middle(tmp_path):
    """An SSH server that would let us in: all that it lacks is the codespace's host key."""
    folder = tmp_path / "middle"
    folder.mkdir()
    server = start_sshd(folder)
    (folder / "user.pub").write_text(load_or_create_user_key().public_line + "\n")
    yield server
    stop_sshd(server)


@pytest.fixture
def hostile_way(middle, env, tmp_path):
    """The environment of somebody whose connections by gh end at the one in the middle."""
    program = tmp_path / "bin" / "gh"
    program.parent.mkdir()
    program.write_text(GH)
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{env['PATH']}"
    return {**env, "PATH": path, "MIDDLE_PORT": str(middle.port), "MIDDLE_USER": middle.username}


@pytest.fixture
def pins(emulator, running):
    return HostKeyPins(pin_name(running, Account(api_url=emulator.api_url)))


async def test_another_server_than_the_one_that_was_seen_by_the_verified_tunnel(
    provider, make_provider, running, hostile_way, middle, pins
):
    await (await provider.connect(running, print)).close()
    pinned = pins.pinned()
    with pytest.raises(HostKeyError, match=r"has changed from SHA256:\S+ to SHA256:\S+\. Somebody may be intercepting"):
        await make_provider(transport="gh", env=hostile_way).connect(running, print)
    assert pins.pinned() == pinned
    assert "Accepted publickey" not in (middle.folder / "log").read_text()


async def test_the_first_server_that_is_seen_is_believed_where_nothing_verifies_it(
    make_provider, running, hostile_way, middle, pins
):
    """What does not protect: whoever stands there from the first connection on, by gh, is not found out. It also shows
    that the test above can fail."""
    connection = await make_provider(transport="gh", env=hostile_way).connect(running, print)
    await connection.close()
    assert "Accepted publickey" in (middle.folder / "log").read_text()
    assert pins.pinned() is not None


async def test_another_tunnel_host_than_the_published_is_no_reason_to_try_a_weaker_way(
    make_provider, emulator, running, hostile_way, middle, tmp_path
):
    emulator.faults.set("host-key")
    with pytest.raises(HostKeyError, match="another key than the tunnel service publishes"):
        await make_provider(transport="auto", env=hostile_way).connect(running, print)
    assert "Accepted publickey" not in (middle.folder / "log").read_text()
    assert not (tmp_path / "bin" / "gh.asked").exists()


@pytest.mark.parametrize("published", [True, False])
async def test_a_changed_server_is_accepted_only_behind_a_verified_tunnel(
    provider, emulator, running, pins, tmp_path, published
):
    pins.check(make_key(tmp_path / "before-the-rebuild"))
    if not published:
        emulator.faults.set("host-key", publishes="none")
    told = []
    if published:
        await (await provider.connect(running, told.append)).close()
        assert any("as it does when a codespace is rebuilt" in event.message for event in told)
    else:
        with pytest.raises(HostKeyError, match="Somebody may be intercepting the connection"):
            await provider.connect(running, told.append)
