"""The two web pages to which GitHub's answers point: a codespace's own, and the one that grants permissions."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from tornado.web import RequestHandler

if TYPE_CHECKING:
    from codespace_kernels.emulator.api import Shared

_PAGE = "<!doctype html><meta charset=utf-8><title>{title}</title><h1>{title}</h1>{body}"


class _Page(RequestHandler):
    def initialize(self, shared: Shared) -> None:
        self.shared = shared

    def show(self, title: str, body: str) -> None:
        self.finish(_PAGE.format(title=html.escape(title), body=body))


class CodespacePage(_Page):
    """`/codespaces/{name}`: the `web_url` of a codespace."""

    def get(self, name: str) -> None:
        """Show what the codespace is and does."""
        codespace = self.shared.account.codespaces.get(name)
        if codespace is None:
            self.set_status(404)
            self.show("Not found", "<p>This emulated account has no such codespace.</p>")
            return
        facts = (codespace.repository.full_name, codespace.state.value, codespace.machine_type.display_name)
        self.show(codespace.display_name, "".join(f"<p>{html.escape(fact)}</p>" for fact in facts))


class PermissionsPage(_Page):
    """`allow_permissions_url`: asks whether the permissions that a devcontainer wants are granted."""

    def get(self, full_name: str) -> None:
        """Ask."""
        self.show(f"Permissions for {full_name}", "<form method=post><button>Authorize</button></form>")

    def post(self, full_name: str) -> None:
        """Grant them: creating is not refused any more."""
        self.shared.faults.clear("permissions")
        self.show(f"Permissions for {full_name}", "<p>Granted.</p>")


PAGE_ROUTES: list[tuple[str, type[_Page]]] = [
    (r"/codespaces/([^/]+)", CodespacePage),
    (r"/([^/]+/[^/]+)/codespaces/allow_permissions", PermissionsPage),
]
