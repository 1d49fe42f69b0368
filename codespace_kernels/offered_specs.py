"""What a workspace says of its kernels, judged before any of it comes to this machine's disk.

A kernelspec's folder is code for whoever reads it: front ends run its `argv`, fill variables of this machine into its
`env` (`${GH_TOKEN}` in a kernel's name would send the token there), and load its `kernel.js` into their pages.
So of an offer only what cannot be such a thing is taken: a name in Jupyter's own alphabet, one line of text for people,
whether it can be debugged, and logos by their three names.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from codespace_kernels.plain_text import one_line
from codespace_kernels.remote_kernel import RemoteKernelSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger(__name__)

LOGOS = frozenset(("logo-32x32.png", "logo-64x64.png", "logo-svg.svg"))
"""The files of a kernelspec that front ends show."""

MAX_LOGO = 1 << 20
"""Bytes; a larger logo is left out."""

MOST = 100
"""Kernelspecs of one workspace that are taken; each becomes a folder here."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
"""As jupyter_client checks it (`kernelspec._kernel_name_pat`); the length is ours."""

_LANGUAGE = re.compile(r"[\w +#.*/()-]{0,50}")
_LONGEST_TITLE = 100


def accepted(offers: Iterable[RemoteKernelSpec]) -> dict[str, RemoteKernelSpec]:
    """Give what may be written here of a workspace's kernelspecs, by name; what is left out is logged."""
    specs = {offer.name: _without_code(offer) for offer in offers if _has_a_name(offer)}
    if len(specs) > MOST:
        log.warning("the workspace offers %d kernelspecs; the first %d are taken", len(specs), MOST)
    return dict(list(specs.items())[:MOST])


def _has_a_name(offer: RemoteKernelSpec) -> bool:
    if _NAME.fullmatch(offer.name) and offer.name.strip("."):
        return True
    log.warning("a kernelspec is left out, as Jupyter allows no such name: %s", one_line(repr(offer.name), 100))
    return False


def _without_code(offer: RemoteKernelSpec) -> RemoteKernelSpec:
    return RemoteKernelSpec(
        name=offer.name,
        display_name=one_line(offer.display_name, _LONGEST_TITLE) or offer.name,
        language=offer.language if _LANGUAGE.fullmatch(offer.language) else "",
        interrupt_mode="message" if offer.interrupt_mode == "message" else "signal",
        metadata={"debugger": True} if offer.metadata.get("debugger") is True else {},
        resources={file: data for file, data in offer.resources.items() if file in LOGOS and len(data) <= MAX_LOGO},
        versions={key: one_line(text, _LONGEST_TITLE) for key, text in offer.versions.items()},
    )
