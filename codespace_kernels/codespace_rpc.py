"""Messages and methods of the gRPC services inside a codespace, for the client and for the emulator.

Field numbers and names are those that `gh` 2.103 uses on the wire: HTTP/2 without TLS on forwarded port 16634, metadata
`authorization: Bearer token` (that literal text), ports as decimal strings. The messages are described here instead of
in generated code, which would tie the package to one release of protobuf.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message as ProtobufMessage

PORT = 16634
"""Port of the services inside every codespace."""

METADATA = {"authorization": "Bearer token"}

_FIELD = descriptor_pb2.FieldDescriptorProto
_STRING, _BOOL = _FIELD.TYPE_STRING, _FIELD.TYPE_BOOL


class _Field(NamedTuple):
    name: str
    type: _FIELD.Type.ValueType
    repeated: bool = False
    optional: bool = False


_MESSAGES: dict[str, tuple[_Field, ...]] = {
    "NotifyRequest": (_Field("ClientId", _STRING), _Field("ClientActivities", _STRING, repeated=True)),
    "NotifyResponse": (_Field("Result", _BOOL), _Field("Message", _STRING)),
    "RebuildRequest": (_Field("Incremental", _BOOL, optional=True),),
    "RebuildResponse": (_Field("RebuildContainer", _BOOL),),
    "StartSshRequest": (_Field("UserPublicKey", _STRING),),
    "StartSshResponse": (
        _Field("Result", _BOOL),
        _Field("ServerPort", _STRING),
        _Field("User", _STRING),
        _Field("Message", _STRING),
    ),
    "GetRunningServerRequest": (),
    "GetRunningServerResponse": (
        _Field("Result", _BOOL),
        _Field("Message", _STRING),
        _Field("Port", _STRING),
        _Field("ServerUrl", _STRING),
    ),
}


def _describe(message: descriptor_pb2.DescriptorProto, fields: tuple[_Field, ...]) -> None:
    for number, field in enumerate(fields, start=1):
        label = _FIELD.LABEL_REPEATED if field.repeated else _FIELD.LABEL_OPTIONAL
        entry = message.field.add(name=field.name, number=number, type=field.type, label=label)
        if field.optional:
            message.oneof_decl.add(name=f"_{field.name}")
            entry.proto3_optional = True
            entry.oneof_index = len(message.oneof_decl) - 1


def _build() -> dict[str, type[ProtobufMessage]]:
    package = "codespace_kernels.rpc"
    file = descriptor_pb2.FileDescriptorProto(name="codespace_kernels/rpc.proto", package=package, syntax="proto3")
    for name, fields in _MESSAGES.items():
        _describe(file.message_type.add(name=name), fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in _MESSAGES
    }


_classes = _build()
# The fields are known at run time only, hence Any for the type checker.
NotifyRequest: Any = _classes["NotifyRequest"]
NotifyResponse: Any = _classes["NotifyResponse"]
RebuildRequest: Any = _classes["RebuildRequest"]
RebuildResponse: Any = _classes["RebuildResponse"]
StartSshRequest: Any = _classes["StartSshRequest"]
StartSshResponse: Any = _classes["StartSshResponse"]
GetRunningServerRequest: Any = _classes["GetRunningServerRequest"]
GetRunningServerResponse: Any = _classes["GetRunningServerResponse"]


class Method(NamedTuple):
    """One unary method: its full path, and the message types of request and answer."""

    path: str
    request: Any
    response: Any


_GRPC = "/Codespaces.Grpc."
NOTIFY_ACTIVITY = Method(
    f"{_GRPC}CodespaceHostService.v1.CodespaceHost/NotifyCodespaceOfClientActivity", NotifyRequest, NotifyResponse
)
REBUILD_CONTAINER = Method(
    f"{_GRPC}CodespaceHostService.v1.CodespaceHost/RebuildContainerAsync", RebuildRequest, RebuildResponse
)
START_SSH_SERVER = Method(
    f"{_GRPC}SshServerHostService.v1.SshServerHost/StartRemoteServerAsync", StartSshRequest, StartSshResponse
)
GET_RUNNING_SERVER = Method(
    f"{_GRPC}JupyterServerHostService.v1.JupyterServerHost/GetRunningServer",
    GetRunningServerRequest,
    GetRunningServerResponse,
)
