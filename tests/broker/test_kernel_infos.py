"""What kernels said of themselves outlives the broker, and no file can harm it."""

from __future__ import annotations

import json

import pytest

from codespace_kernels.bridge import guessed_kernel_info
from codespace_kernels.broker.kernel_infos import MAX_BYTES, MAX_KERNELS, KernelInfos
from codespace_kernels.target import Account, Target

TARGET = Target(Account(), "hello", "python3")
INFO = {"status": "ok", "language_info": {"name": "python", "version": "3.12.1"}}


def save(infos: KernelInfos) -> None:
    infos.save(infos.to_text())


def test_is_remembered(tmp_path):
    path = tmp_path / "infos.json"
    infos = KernelInfos(path)
    assert infos.get(TARGET) is None
    assert infos.put(TARGET, INFO)
    assert not infos.put(TARGET, dict(INFO))
    save(infos)
    assert KernelInfos(path).get(TARGET) == INFO
    assert [file.name for file in tmp_path.iterdir()] == ["infos.json"]


@pytest.mark.parametrize("other", [Target(Account(), "hello", "ir"), Target(Account(), "other", "python3"),
                                   Target(Account(api_url="http://127.0.0.1"), "hello", "python3")])  # fmt: skip
def test_kernels_are_told_apart(tmp_path, other):
    infos = KernelInfos(tmp_path / "infos.json")
    infos.put(TARGET, INFO)
    assert infos.get(other) is None


def test_a_guess_takes_no_replys_place_unless_the_language_has_another_version(tmp_path):
    infos = KernelInfos(tmp_path / "infos.json")
    guess = guessed_kernel_info("python", "hello", {"python": "3.12.1", "ipython": "8.20"})
    assert infos.put_guess(TARGET, guess)
    assert infos.get(TARGET) == guess
    assert infos.put(TARGET, INFO)
    assert not infos.put_guess(TARGET, guess)
    assert infos.get(TARGET) == INFO
    newer = guessed_kernel_info("python", "hello", {"python": "3.13.0"})
    assert infos.put_guess(TARGET, newer)
    assert infos.get(TARGET) == newer


FOREIGN = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[]",
    b'{"version": 2, "kernels": {}}',
    b'{"kernels": {}}',
    b'{"version": 1, "kernels": []}',
    b'{"version": 1, "kernels": {"k": 1, "l": {"language_info": "python"}}}',
]


@pytest.mark.parametrize("content", FOREIGN)
def test_a_torn_or_foreign_file_is_ignored_and_replaced(tmp_path, content):
    path = tmp_path / "infos.json"
    path.write_bytes(content)
    infos = KernelInfos(path)
    assert json.loads(infos.to_text())["kernels"] == {}
    infos.put(TARGET, INFO)
    save(infos)
    assert KernelInfos(path).get(TARGET) == INFO


def test_is_bounded(tmp_path):
    infos = KernelInfos(tmp_path / "infos.json")
    targets = [Target(Account(), f"w{number}", "python3") for number in range(MAX_KERNELS + 1)]
    for target in targets:
        infos.put(target, INFO)
    assert infos.get(targets[0]) is None
    assert infos.get(targets[-1]) == INFO
    assert not infos.put(TARGET, {**INFO, "banner": "x" * MAX_BYTES})


def test_a_folder_that_cannot_be_written_is_logged(tmp_path, caplog):
    infos = KernelInfos(tmp_path / "missing" / "infos.json")
    infos.put(TARGET, INFO)
    save(infos)
    assert "cannot write" in caplog.text
    assert infos.get(TARGET) == INFO
