"""An emulated account that says it is where a proxy in front of it is.

    python -m benchmarks.far_emulator

Prints JSON with its port and its environment; the port of the proxy is then read from stdin. It ends with stdin.
"""

from __future__ import annotations

import asyncio
import json
import sys

from codespace_kernels.emulator.server import Emulator


async def run() -> None:
    async with Emulator(transition_seconds=0.0, rate_limit=1_000_000, sshd="openssh") as emulator:
        port = int(emulator.api_url.rpartition(":")[2])
        (codespace,) = emulator.account.codespaces.values()
        told = {"port": port, "environment": emulator.environment(), "codespace": codespace.name}
        print(json.dumps({**told, "folder": emulator.record.folder}), flush=True)
        line = await asyncio.to_thread(sys.stdin.readline)
        emulator.tunnels.base_url = f"http://127.0.0.1:{int(line or port)}"
        print("{}", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(run())
