"""A kernel by hand, as the documentation of IPython has it: started over SSH, and five ports that `ssh -L` forwards.

    python -m benchmarks.forwarded_ports SSH_COMMAND PYTHON    # the command is a JSON list

Prints the connection info as JSON, and ends with stdin.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid

from tests.ports import free_ports

NAMES = ("hb_port", "iopub_port", "control_port", "shell_port", "stdin_port")


def main() -> None:
    ssh = json.loads(sys.argv[1])
    remote, local = dict(zip(NAMES, free_ports(5), strict=True)), dict(zip(NAMES, free_ports(5), strict=True))
    common = {"ip": "127.0.0.1", "transport": "tcp", "key": uuid.uuid4().hex, "signature_scheme": "hmac-sha256"}
    forwards = [part for name in NAMES for part in ("-L", f"127.0.0.1:{local[name]}:127.0.0.1:{remote[name]}")]
    file = f"kernel-{uuid.uuid4().hex}.json"
    # The session runs the kernel, so that the connection is an interactive one, without Nagle's delay.
    command = f"umask 077; cat > {file}; exec {sys.argv[2]} -m ipykernel_launcher -f {file}"
    process = subprocess.Popen([*ssh, *forwards, "far", command], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    process.stdin.write(json.dumps({**common, **remote}).encode())
    process.stdin.close()
    print(json.dumps({**common, **local}), flush=True)
    sys.stdin.read()
    process.terminate()
    process.wait()


if __name__ == "__main__":
    main()
