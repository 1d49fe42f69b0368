"""The shell command that takes a file from its stdin; works where the image has no SFTP server."""

from __future__ import annotations

import posixpath
import secrets
import shlex


def upload_command(path: str, size: int, mode: int) -> str:
    """Build the command that replaces a file atomically by `size` bytes of its stdin.

    A connection that is lost in the middle looks like an ordinary end of file to the remote side, so the size is
    compared before the file takes its place.

    Args:
        path: Absolute, or relative to the home folder.
        size: Bytes.
        mode: Permission bits.
    """
    folder, name = posixpath.split(path)
    # "./" so that no name is taken for an option.
    folder = folder if folder.startswith("/") else f"./{folder}"
    target = posixpath.join(folder, name)
    temporary = posixpath.join(folder, f".{name[:100]}.{secrets.token_hex(6)}.part")
    # A lost connection takes stderr away as well: what is said there must not end the shell before it has cleaned up.
    script = (
        f"trap '' PIPE; umask 077; t={shlex.quote(temporary)}; p={shlex.quote(target)}; "
        f"mkdir -p {shlex.quote(folder)} || exit 1; "
        'if [ -d "$p" ]; then echo "it is a folder" >&2; exit 1; fi; '
        f'cat > "$t" && n=$(wc -c < "$t") && if [ "$n" -ne {size} ]; then echo "got $n of {size} bytes" >&2; false; fi '
        f'&& chmod {mode:o} "$t" && mv -f "$t" "$p" || {{ rm -f "$t"; exit 1; }}'
    )
    # The user's own shell may be one that does not speak POSIX.
    return f"exec sh -c {shlex.quote(script)}"
