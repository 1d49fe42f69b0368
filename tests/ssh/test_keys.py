from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from codespace_kernels.errors import SshError
from codespace_kernels.ssh.keys import load_or_create_user_key


def test_is_made_once(tmp_path):
    first = load_or_create_user_key(tmp_path)
    second = load_or_create_user_key(tmp_path)
    assert first.public_line == second.public_line
    assert first.path == tmp_path / "id_ed25519"
    assert first.public_line.endswith(" codespace-kernels")
    load_ssh_public_key(first.public_line.encode())


def test_nobody_else_can_read_it_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        key = load_or_create_user_key(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(key.path.stat().st_mode) == 0o600
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_default_place_is_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(tmp_path / "home"))
    assert load_or_create_user_key().path == tmp_path / "home" / "id_ed25519"


def test_openssh_reads_both_halves(tmp_path):
    key = load_or_create_user_key(tmp_path)
    derived = subprocess.run(["ssh-keygen", "-y", "-f", key.path], capture_output=True, text=True, check=True).stdout
    assert derived.split()[:2] == key.public_line.split()[:2]
    assert (tmp_path / "id_ed25519.pub").read_text() == key.public_line + "\n"


def test_processes_that_start_at_once_agree(tmp_path):
    code = (
        "import sys, pathlib; from codespace_kernels.ssh.keys import load_or_create_user_key as load\n"
        "sys.stdin.read(1); print(load(pathlib.Path(sys.argv[1])).public_line)"
    )
    pipe = subprocess.PIPE
    children = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path], stdin=pipe, stdout=pipe, text=True) for _ in range(4)
    ]
    for child in children:
        child.stdin.write("x")
        child.stdin.close()
    lines = {child.stdout.read() for child in children}
    for child in children:
        child.stdout.close()
        assert child.wait(30) == 0
    assert lines == {load_or_create_user_key(tmp_path).public_line + "\n"}


@pytest.mark.parametrize("content", [b"", b"torn", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"])
def test_file_without_a_key_is_kept_and_told(tmp_path, content):
    path = tmp_path / "id_ed25519"
    path.write_bytes(content)
    with pytest.raises(SshError, match=r"id_ed25519 holds no SSH key that can be used .* Move the file away"):
        load_or_create_user_key(tmp_path)
    assert path.read_bytes() == content


def test_key_with_a_passphrase_is_kept_and_told(tmp_path):
    path = tmp_path / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", path], check=True)
    before = path.read_bytes()
    with pytest.raises(SshError, match="holds no SSH key"):
        load_or_create_user_key(tmp_path)
    assert path.read_bytes() == before


def test_something_unreadable_in_its_place(tmp_path):
    (tmp_path / "id_ed25519").mkdir()
    with pytest.raises(SshError, match="cannot be read or made: Is a directory"):
        load_or_create_user_key(tmp_path)


def test_permissions_that_are_too_wide_are_mended_and_told(tmp_path, caplog):
    path = load_or_create_user_key(tmp_path).path
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        load_or_create_user_key(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "could be read by others" in caplog.text


def test_private_key_is_in_no_text(tmp_path):
    key = load_or_create_user_key(tmp_path)
    assert key.path.read_text().split("\n")[2][:40] not in repr(key)
