"""A command or shell of the SSH server on paramiko: a process whose streams are tied to a channel."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading

import paramiko
from paramiko.common import MSG_CHANNEL_REQUEST

from codespace_kernels.emulator.channel_pump import PumpedTransport, Send


class Terminal:
    """A pseudo terminal.

    Args:
        term: The kind of the client's terminal, for `TERM`.
        width: Characters in a line.
        height: Lines.

    Raises:
        OSError: The system has no pseudo terminal left.
    """

    def __init__(self, term: str, width: int, height: int) -> None:
        self.term = term
        self.master, self.slave = pty.openpty()
        self.resize(width, height)

    def resize(self, width: int, height: int) -> None:
        """Change its size."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def take_control(self) -> None:
        """Become the terminal of the session that this process leads. Called in the new process."""
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)


class Session:
    """One process.

    As OpenSSH's server does it: the channel is closed when the process has ended and its output is at its end; a client
    that is gone does not end the process, other than by the terminal's hang-up.

    Args:
        transport: The connection.
        channel: The session's channel.
        terminal: Its terminal, owned from here on; None for pipes.
    """

    def __init__(self, transport: PumpedTransport, channel: paramiko.Channel, terminal: Terminal | None) -> None:
        self._transport = transport
        self._channel = channel
        self._terminal = terminal
        self._process: subprocess.Popen[bytes] | None = None
        self._stdin = -1
        self._outputs: dict[int, Send] = {}
        self._output_ended = False
        self._status: int | None = None

    def start(self, argv: list[str], environment: dict[str, str]) -> bool:
        """Start the process; false where it cannot be started. Nothing is read or written before `splice`."""
        try:
            if self._terminal is None:
                self._start_with_pipes(argv, environment)
            else:
                self._start_with_terminal(self._terminal, argv, environment)
        except OSError:
            return False
        for descriptor in {self._stdin, *self._outputs}:
            os.set_blocking(descriptor, False)
        return True

    def splice(self) -> None:
        """Tie the process's streams to the channel."""
        self._transport.splice(
            self._channel,
            sources=self._outputs,
            sink=self._stdin,
            on_sources_end=self._outputs_ended,
            on_sink_end=self._input_ended,
            on_close=self._closed,
        )
        threading.Thread(target=self._wait, daemon=True, name="session-wait").start()

    def resize(self, width: int, height: int) -> bool:
        """Change the terminal's size; false where there is none."""
        if self._terminal is None:
            return False
        with contextlib.suppress(OSError):
            self._terminal.resize(width, height)
        return True

    def _start_with_pipes(self, argv: list[str], environment: dict[str, str]) -> None:
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        assert process.stdin
        assert process.stdout
        assert process.stderr
        # Plain descriptors from here on: the file objects would buffer, and close at their own time.
        self._stdin = os.dup(process.stdin.fileno())
        stdout, stderr = os.dup(process.stdout.fileno()), os.dup(process.stderr.fileno())
        self._outputs = {stdout: self._channel.send, stderr: self._channel.send_stderr}
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
        self._process = process

    def _start_with_terminal(self, terminal: Terminal, argv: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            argv,
            env={**environment, "TERM": terminal.term},
            stdin=terminal.slave,
            stdout=terminal.slave,
            stderr=terminal.slave,
            start_new_session=True,
            preexec_fn=terminal.take_control,
        )
        os.close(terminal.slave)
        self._stdin = terminal.master
        self._outputs = {terminal.master: self._channel.send}

    def _wait(self) -> None:
        assert self._process is not None
        status = self._process.wait()
        self._transport.call(self._ended, status)

    def _ended(self, status: int) -> None:
        self._status = status
        self._finish()

    def _outputs_ended(self) -> None:
        self._output_ended = True
        self._finish()

    def _finish(self) -> None:
        splice = self._transport.splices.get(self._channel.chanid)
        if self._status is None or not self._output_ended or splice is None:
            return
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            if self._status >= 0:
                self._channel.send_exit_status(self._status)
            else:
                self._transport.send(self._exit_signal(-self._status))
        self._channel.close()
        # The close came from this side: nothing will come through the channel that could wake its splice.
        splice.wake()

    def _exit_signal(self, number: int) -> paramiko.Message:
        message = paramiko.Message()
        message.add_byte(bytes([MSG_CHANNEL_REQUEST]))
        message.add_int(self._channel.remote_chanid)
        message.add_string("exit-signal")
        message.add_boolean(False)
        message.add_string(signal.Signals(number).name.removeprefix("SIG"))
        message.add_boolean(False)
        message.add_string("")
        message.add_string("")
        return message

    def _input_ended(self) -> None:
        if self._terminal is None:
            os.close(self._stdin)
            self._stdin = -1

    def _closed(self) -> None:
        for descriptor in {self._stdin, *self._outputs} - {-1}:
            with contextlib.suppress(OSError):
                os.close(descriptor)
