"""Files for the SFTP subsystem of the SSH server on paramiko: those of the machine, seen from the home folder."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import paramiko
from paramiko import SFTPAttributes, SFTPHandle, SFTPServer, SFTPServerInterface
from paramiko.sftp import SFTP_FAILURE, SFTP_OK

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _coded(method: Callable[_P, _R]) -> Callable[_P, _R | int]:
    """Turn `OSError` into the protocol's error code."""

    @functools.wraps(method)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R | int:
        try:
            return method(*args, **kwargs)
        except OSError as error:
            return SFTPServer.convert_errno(error.errno or 0)

    return call


class SftpServer(SFTPServer):
    """The SFTP subsystem."""

    def finish_subsystem(self) -> None:
        """End the session as a program that succeeded; `scp` reports a failure where no exit status comes."""
        assert isinstance(self.sock, paramiko.Channel)
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self.sock.send_exit_status(0)
        super().finish_subsystem()


class _OpenFile(SFTPHandle):
    """An open file, read and written at any offset."""

    def __init__(self, descriptor: int, flags: int) -> None:
        super().__init__(flags)
        self._descriptor = descriptor

    def close(self) -> None:
        os.close(self._descriptor)

    @_coded
    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    @_coded
    def write(self, offset: int, data: ReadableBuffer) -> int:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written
        return SFTP_OK

    @_coded
    def stat(self) -> SFTPAttributes:
        return SFTPAttributes.from_stat(os.fstat(self._descriptor))

    @_coded
    def chattr(self, attr: SFTPAttributes) -> int:
        _change(self._descriptor, attr)
        return SFTP_OK


class Files(SFTPServerInterface):
    """The file system; relative paths begin at the server's working folder, which is the home folder."""

    @_coded
    def open(self, path: str, flags: int, attr: SFTPAttributes) -> SFTPHandle:
        """Open a file."""
        mode = 0o666 if attr.st_mode is None else stat.S_IMODE(attr.st_mode)
        return _OpenFile(os.open(path, flags | os.O_CLOEXEC, mode), flags)

    @_coded
    def list_folder(self, path: str) -> list[SFTPAttributes]:
        """List a folder."""
        found = []
        for file in Path(path).iterdir():
            attributes = SFTPAttributes.from_stat(file.lstat())
            attributes.filename = file.name
            found.append(attributes)
        return found

    @_coded
    def stat(self, path: str) -> SFTPAttributes:
        """Describe what a path leads to."""
        return SFTPAttributes.from_stat(Path(path).stat())

    @_coded
    def lstat(self, path: str) -> SFTPAttributes:
        """Describe a file, links not followed."""
        return SFTPAttributes.from_stat(Path(path).lstat())

    @_coded
    def remove(self, path: str) -> int:
        """Remove a file."""
        Path(path).unlink()
        return SFTP_OK

    @_coded
    def rename(self, oldpath: str, newpath: str) -> int:
        """Rename a file; what has the new name stays."""
        if os.path.lexists(newpath):
            return SFTP_FAILURE
        Path(oldpath).rename(newpath)
        return SFTP_OK

    @_coded
    def posix_rename(self, oldpath: str, newpath: str) -> int:
        """Rename a file in place of what has the new name."""
        Path(oldpath).replace(newpath)
        return SFTP_OK

    @_coded
    def mkdir(self, path: str, attr: SFTPAttributes) -> int:
        """Make a folder."""
        Path(path).mkdir()
        _change(path, attr)
        return SFTP_OK

    @_coded
    def rmdir(self, path: str) -> int:
        """Remove an empty folder."""
        Path(path).rmdir()
        return SFTP_OK

    @_coded
    def chattr(self, path: str, attr: SFTPAttributes) -> int:
        """Change mode, times or size."""
        _change(path, attr)
        return SFTP_OK

    def canonicalize(self, path: str) -> str:
        """Give the absolute path."""
        return os.path.realpath(path or ".")

    @_coded
    def readlink(self, path: str) -> str:
        """Give the target of a link."""
        return str(Path(path).readlink())

    @_coded
    def symlink(self, target_path: str, path: str) -> int:
        """Make a link."""
        Path(path).symlink_to(target_path)
        return SFTP_OK


def _change(file: str | int, attributes: SFTPAttributes) -> None:
    """Change mode, size and times. paramiko's own helper empties a file whose size is set."""
    if attributes.st_mode is not None:
        os.chmod(file, stat.S_IMODE(attributes.st_mode))  # noqa: PTH101  (a descriptor too)
    if attributes.st_size is not None:
        os.truncate(file, attributes.st_size)
    if attributes.st_atime is not None and attributes.st_mtime is not None:
        os.utime(file, (attributes.st_atime, attributes.st_mtime))
