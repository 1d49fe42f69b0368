"""Bodies of create and patch, checked as GitHub does: what is wrong is told item by item, in a 422."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codespace_kernels.emulator.account import Account, NewCodespace
from codespace_kernels.emulator.models import MachineType, Repository, timestamp
from codespace_kernels.emulator.refusals import ApiError, not_found

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codespace_kernels.emulator.codespace import Codespace
    from codespace_kernels.emulator.rendering import Json

_GEOS = {
    "EuropeWest": "WestEurope",
    "SoutheastAsia": "SouthEastAsia",
    "UsEast": "EastUs",
    "UsWest": "WestUs2",
}
_DISPLAY_NAME_BYTES = 48


class _Checker:
    """Reads the members of one body and collects what is wrong with them."""

    def __init__(self, body: Json) -> None:
        self.body = body
        self.errors: list[Json] = []

    def fail(self, field: str, code: str = "invalid", message: str = "") -> None:
        error = {"resource": "Codespace", "field": field, "code": code}
        self.errors.append({**error, "message": message} if message else error)

    def raise_if_wrong(self) -> None:
        if self.errors:
            raise ApiError(422, "Validation Failed", errors=self.errors)

    def text(self, field: str) -> str:
        value: Any = self.body.get(field)
        if value is None or isinstance(value, str):
            return value or ""
        self.fail(field, message=f"{field} must be a string")
        return ""

    def minutes(self, field: str, lowest: int, highest: int) -> int | None:
        value: Any = self.body.get(field)
        # A JSON true is a Python int.
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and (not whole or not lowest <= value <= highest):
            self.fail(field, message=f"{field} must be between {lowest} and {highest}")
        return value if whole else None

    def idle_timeout(self) -> int | None:
        return self.minutes("idle_timeout_minutes", 5, 240)

    def display_name(self) -> str:
        name = self.text("display_name")
        if len(name.encode()) > _DISPLAY_NAME_BYTES:
            self.fail("display_name", message=f"display_name is longer than {_DISPLAY_NAME_BYTES} bytes")
        return name

    def machine(self, offered: Sequence[MachineType]) -> MachineType | None:
        name = self.text("machine")
        machine = next((machine for machine in offered if machine.name == name), None)
        if name and machine is None:
            self.fail("machine", message=f"{name} is not a machine type of this repository")
        return machine

    def one_of(self, field: str, known: list[str]) -> str:
        value = self.text(field)
        if value and value not in known:
            self.fail(field, message=f"{field} must be one of {', '.join(known)}")
        return value

    def location(self) -> str:
        geo = self.one_of("geo", list(_GEOS))
        return _GEOS.get(geo) or self.one_of("location", list(_GEOS.values()))


def _repository(body: Json, account: Account) -> Repository:
    number: Any = body.get("repository_id")
    if isinstance(body.get("pull_request"), dict):
        # Emulated repositories have no pull requests, so none is found.
        raise not_found()
    if not isinstance(number, int):
        code = "missing_field" if number is None else "invalid"
        item = {"resource": "Codespace", "field": "repository_id", "code": code}
        raise ApiError(422, "Validation Failed", errors=[item])
    repository = account.repository_by_id(number)
    if repository is None:
        raise not_found()
    return repository


def parse_create(body: Json, account: Account, repository: Repository | None = None) -> NewCodespace:
    """Read what a request to create a codespace asks for.

    Args:
        body: What was sent. Members that are not known are passed over: `gh` sends some that are not public.
        account: Whose codespace it will be.
        repository: Where the path names it; None: `repository_id` does.

    Raises:
        ApiError: 422 with an item for each wrong member; 404 for a repository that is not there.
    """
    repository = repository or _repository(body, account)
    check = _Checker(body)
    wanted = NewCodespace(
        repository=repository,
        ref=check.one_of("ref", repository.branches),
        display_name=check.display_name(),
        machine_type=check.machine(account.machine_types(repository)),
        devcontainer_path=check.one_of("devcontainer_path", repository.devcontainers) or None,
        location=check.location(),
        idle_timeout_minutes=check.idle_timeout(),
        retention_period_minutes=check.minutes("retention_period_minutes", 0, 43200),
    )
    check.raise_if_wrong()
    return wanted


def apply_patch(body: Json, account: Account, codespace: Codespace) -> None:
    """Change what a PATCH asks for: `display_name`, `machine`, `idle_timeout_minutes`; all or nothing.

    Raises:
        ApiError: 422 with an item for each wrong member.
    """
    check = _Checker(body)
    display_name, machine, minutes = (
        check.display_name(),
        check.machine(account.machine_types(codespace.repository)),
        check.idle_timeout(),
    )
    check.raise_if_wrong()
    codespace.display_name = display_name or codespace.display_name
    codespace.machine_type = machine or codespace.machine_type
    codespace.idle_timeout_minutes = minutes or codespace.idle_timeout_minutes
    codespace.updated_at = timestamp()
