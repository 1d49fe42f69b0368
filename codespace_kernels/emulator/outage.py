"""The fault `api-down`: requests that are refused, never answered, or hung up on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tornado.iostream import StreamClosedError

if TYPE_CHECKING:
    from tornado.iostream import IOStream
    from tornado.web import RequestHandler

    from codespace_kernels.emulator.faults import Fault, FaultBoard

_hanging: set[asyncio.Task[None]] = set()
"""Keeps the tasks from being collected while they wait."""


def strike(faults: FaultBoard, codespace: str, request: RequestHandler) -> bool:
    """Do to a request what the fault orders; tell whether it is to be answered with 503.

    A request that is not to be answered loses its connection, so that nothing may be done with it any more.

    Args:
        faults: The board.
        codespace: Name of the codespace that the request is about, or an empty string.
        request: What handles it.
    """
    fault = faults.take("api-down", codespace)
    if fault is None:
        return False
    if fault.options["how"] == "unavailable":
        return True
    # Tornado looks at this before it goes on with the request.
    request._finished = True
    stream = request.detach()
    if fault.options["how"] == "close":
        stream.close()
    else:
        task = asyncio.ensure_future(_hang(faults, stream))
        _hanging.add(task)
        task.add_done_callback(_hanging.discard)
    return False


async def _hang(faults: FaultBoard, stream: IOStream) -> None:
    """Keep a connection open until the fault is gone, or the client."""
    loop = asyncio.get_running_loop()

    def changed(fault: Fault, active: bool) -> None:
        if fault.kind == "api-down" and not active:
            loop.call_soon_threadsafe(stream.close)

    unsubscribe = faults.subscribe(changed)
    try:
        await stream.read_until_close()
    except StreamClosedError:
        pass
    finally:
        unsubscribe()
