"""No file, argv or foreign environment holds the account's token or a kernel's key, but those that are for it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from codespace_kernels.broker.client import BrokerClient

from .clients import execute, running_kernel, text_of

pytestmark = pytest.mark.e2e


def files_with(secret: str, folder: Path) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        try:
            if path.is_file() and secret.encode() in path.read_bytes():
                found.append(str(path.relative_to(folder)))
        except OSError:
            continue
    return found


def processes_with(secret: str) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if any(secret in argument for argument in process.cmdline()):
                found.append(process.name())
        except psutil.Error:
            continue
    return found


async def test_where_token_and_key_stand(account, kernel_name, test_home):
    token = account.environment["GH_ENTERPRISE_TOKEN"]
    async with running_kernel(kernel_name) as (manager, client):
        assert text_of(await execute(client, "print(1)")) == "1\n"
        key = manager.session.key.decode()
        broker = psutil.Process(BrokerClient().call("GET", "")["pid"])
        assert token not in str(broker.environ())
        assert not processes_with(token)
        assert not processes_with(key)
        # The emulator's own state file is where its token is looked up; a connection file is there to hold the key.
        assert {Path(name).parent.name for name in files_with(token, test_home)} <= {"emulators"}
        keyed = {
            path for path in files_with(key, test_home) if not path.endswith(manager.connection_file.split("/")[-1])
        }
        assert keyed == set()
        assert oct(Path(manager.connection_file).stat().st_mode & 0o777) == "0o600"
        assert token not in str(BrokerClient().call("GET", "status"))
        assert key not in str(BrokerClient().call("GET", "status"))
