from __future__ import annotations

import json
import logging
import stat

import pytest

from codespace_kernels.errors import HostKeyError
from codespace_kernels.ssh.hostkeys import HostKeyPins
from tests.ssh.conftest import make_key


@pytest.fixture
def keys(tmp_path):
    return [make_key(tmp_path / f"key{n}") for n in range(2)]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "known_hosts"


def pins(folder, workspace="octocat/ml", **options):
    return HostKeyPins(workspace, folder=folder, **options)


def test_first_key_is_pinned_and_known_again(folder, keys):
    pins(folder).check(keys[0])
    pins(folder).check(keys[0])
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    data = json.loads(file.read_text())
    assert (data["workspace"], data["key_type"], data["key"]) == ("octocat/ml", "ssh-ed25519", keys[0].get_base64())


def test_changed_key_is_refused(folder, keys):
    pins(folder).check(keys[0])
    with pytest.raises(HostKeyError, match=r"octocat/ml has changed from SHA256:\S+ to SHA256:.* delete /"):
        pins(folder).check(keys[1])
    pins(folder).check(keys[0])


def test_changed_key_behind_a_verified_tunnel_is_accepted_with_a_notice(folder, keys, caplog):
    notices = []
    pins(folder).check(keys[0])
    with caplog.at_level(logging.WARNING):
        pins(folder, verified_tunnel=True, notify=notices.append).check(keys[1])
    assert "has changed" in caplog.text
    assert len(notices) == 1
    assert "rebuilt" in notices[0]
    # The new one is the pinned one now.
    pins(folder).check(keys[1])
    with pytest.raises(HostKeyError):
        pins(folder).check(keys[0])


def test_workspaces_do_not_meet(folder, keys):
    for name, key in zip(("a/b", "a-b"), keys, strict=True):
        pins(folder, name).check(key)
    for name, key in zip(("a/b", "a-b"), keys, strict=True):
        pins(folder, name).check(key)


@pytest.mark.parametrize("workspace", ["../../etc/passwd", "", "ü" * 300, "con:1\n"])
def test_any_name_is_a_file_in_the_folder(folder, keys, workspace):
    pins(folder, workspace).check(keys[0])
    with pytest.raises(HostKeyError):
        pins(folder, workspace).check(keys[1])
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b'{"version": 1, "key": "AAA', b"[]", b'{"version": 1, "key": "%"}', b"\xff"])
def test_torn_file_is_set_aside_with_a_warning(folder, keys, caplog, content):
    pins(folder).check(keys[0])
    (file,) = folder.iterdir()
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        pins(folder).check(keys[1])
    assert "was unreadable; moved to" in caplog.text
    damaged = [p for p in folder.iterdir() if p != file]
    assert [p.read_bytes() for p in damaged] == [content]
    pins(folder).check(keys[1])


def test_file_of_another_version_is_kept_and_told(folder, keys):
    pins(folder).check(keys[0])
    (file,) = folder.iterdir()
    file.write_text('{"version": 2}')
    with pytest.raises(HostKeyError, match="another version"):
        pins(folder).check(keys[0])
    assert file.read_text() == '{"version": 2}'
