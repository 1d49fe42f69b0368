"""Hands a channel of the SSH server to the link: `python -I -S splice.py SOCKET GREETING [SCRIPT]`.

Instead of copying bytes it passes its stdin and stdout to the process at the other end of the Unix socket, which reads
and writes them itself: nothing stands between the SSH server and the link. It only stays until that process lets go,
because the SSH server closes the channel when the command ends. It is started for every connection, so it imports as
little as can be, and it is a file of its own because importing from a zip costs more than all it does. Where nobody
listens at the socket, it becomes the shell script instead, if there is one.
"""

import os
import sys
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket  # importing `socket` doubles the start-up time
from array import array


def main() -> None:
    """Connect, greet, pass the descriptors, wait."""
    path, greeting, *script = sys.argv[1:]
    link = socket(AF_UNIX, SOCK_STREAM)
    try:
        link.connect(path)
    except OSError:
        if script:
            os.execvp("sh", ["sh", "-c", script[0]])  # noqa: S606  (the script takes this process's place)
        os.write(1, b'codespace-kernels: {"result": "missing"}\n')
        return
    os.write(1, greeting.encode() + b"\n")
    descriptors = array("i", [0, 1])
    link.sendmsg([b"\0"], [(SOL_SOCKET, SCM_RIGHTS, descriptors)])
    link.recv(1)


if __name__ == "__main__":
    main()
