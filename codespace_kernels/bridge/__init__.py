"""Local ZMQ sockets on one side, a remote kernel on the other; no other I/O."""

from codespace_kernels.bridge.answers import guessed_kernel_info
from codespace_kernels.bridge.bridge import KernelBridge
from codespace_kernels.bridge.owner import BridgeOwner
from codespace_kernels.bridge.request_log import OpenRequest, RequestLog
from codespace_kernels.bridge.requests import RequestHandler
from codespace_kernels.bridge.sockets import Ports
from codespace_kernels.bridge.stats import BridgeStats
from codespace_kernels.bridge.unattended import UnattendedKernel
from codespace_kernels.bridge.waiting_line import WaitingState

__all__ = [
    "BridgeOwner",
    "BridgeStats",
    "KernelBridge",
    "OpenRequest",
    "Ports",
    "RequestHandler",
    "RequestLog",
    "UnattendedKernel",
    "WaitingState",
    "guessed_kernel_info",
]
