"""A Jupyter server that is not ours, as a client sees it: REST and kernel websocket."""

from codespace_kernels.jupyter.models import KernelModel, KernelSpec
from codespace_kernels.jupyter.rest import ServerClient
from codespace_kernels.jupyter.url import ServerUrl, parse_server_url
from codespace_kernels.jupyter.websocket import WebsocketKernel

__all__ = ["KernelModel", "KernelSpec", "ServerClient", "ServerUrl", "WebsocketKernel", "parse_server_url"]
