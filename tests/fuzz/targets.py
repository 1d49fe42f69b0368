"""What is fed. Each target takes a seeded die, makes one case of it, and raises where the tested code misbehaves."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable
from typing import Any

from nacl import bindings

from codespace_kernels.bootstrap import parse_report
from codespace_kernels.bridge.strict_json import strict_message
from codespace_kernels.errors import CodespaceKernelsError, TunnelError, error_from_json
from codespace_kernels.jupyter import legacy, v1
from codespace_kernels.link import commands, frames
from codespace_kernels.link.session import Failed, MessageReceived, Session
from codespace_kernels.messages import Channel, MalformedMessageError, Message, Signer
from codespace_kernels.remote.records import RecordDecoder, encode
from codespace_kernels.tunnel.management import TunnelEndpoint
from codespace_kernels.tunnel.properties import TunnelProperties
from codespace_kernels.zmtp.curve import CurveKeys, CurveServer
from codespace_kernels.zmtp.frames import ZmtpError, encode_message
from codespace_kernels.zmtp.mechanisms import Null
from codespace_kernels.zmtp.peer import Peer, Ready, Subscription
from tests.zmtp.hello import GREETING, ready

from .material import any_json, bent, document, mutated, pieces

ID = "0123456789abcdef"
LARGEST_BUFFER = 5 + 14 + frames.MAX_FRAGMENT


def hello(**changed: Any) -> bytes:
    return frames.encode_hello(frames.Hello(ID, "peer", "", 0)._replace(**changed))


def data_frame(dice: random.Random, number: int, body: bytes) -> bytes:
    more = dice.random() < 0.2
    return frames.encode_data_header(number, dice.randrange(3), dice.randrange(6), more, len(body)) + body


def traffic(dice: random.Random) -> bytes:
    """Give what a peer might send after its hello, its numbers mostly right."""
    data = b""
    number = 0
    for _ in range(dice.randint(1, 8)):
        number += dice.choice((1, 1, 1, 1, 0, 2, -1, 2**40)) if dice.random() < 0.3 else 1
        body = frames.encode_message([dice.randbytes(dice.choice((0, 3, 40, 20000))) for _ in range(dice.randrange(4))])
        if dice.random() < 0.8:
            data += data_frame(dice, max(0, number), body)
        else:
            token = dice.getrandbits(64)
            control = (frames.encode_ack(token % 4, 0.1), frames.encode_ping(token), frames.encode_pong(token % 3))
            data += dice.choice(control)
    return data + dice.choice((b"", b"", frames.encode_bye("bye"), frames.encode_error("no"), hello()))


def link_frames(dice: random.Random) -> bool:
    """Bytes of the link become frames or the protocol's error, and none are kept beyond one frame."""
    decoder = frames.FrameDecoder()
    for piece in pieces(dice, mutated(dice, hello() + traffic(dice))):
        for frame in decoder.feed(piece):
            if isinstance(frame, frames.ProtocolError):
                return False
            assert type(frame).__module__ == frames.__name__
        assert sum(map(len, decoder._kept)) <= LARGEST_BUFFER
    return True


def link_session(dice: random.Random) -> bool:
    """A session takes anything, fails by name, and goes on with an honest peer afterwards."""
    session = Session(ID)
    for kernel in range(dice.randrange(4)):
        session.send(kernel, 1, [dice.randbytes(dice.choice((10, 70000)))])
    session.attach()
    first = dice.choice((hello, hello, lambda: hello(received=dice.randrange(5), peer="x"), bytes))()
    failed = False
    for piece in pieces(dice, first + mutated(dice, traffic(dice))):
        session.data_to_send(0.0)
        for event in session.receive_data(piece, dice.random()):
            failed = failed or isinstance(event, Failed)
        assert session._unfinished <= frames.MAX_UNFINISHED
        assert session.kept_bytes >= 0
    meet_honest_peer(session)
    return not failed


def meet_honest_peer(session: Session) -> None:
    peer = Session(ID)
    session.attach()
    peer.attach()
    session.send(7, 1, [b"after all"])
    now, got = 1.0, []
    for _ in range(60):
        now += 0.1
        got += peer.receive_data(session.data_to_send(now, 1 << 20), now)
        assert not [event for event in session.receive_data(peer.data_to_send(now), now) if isinstance(event, Failed)]
    assert MessageReceived(7, 1, [b"after all"]) in got
    assert session.kept_bytes == session.queued_bytes == 0


def link_messages(dice: random.Random) -> bool:
    """Parts and the JSON of commands come out whole or are refused by name."""
    data = frames.encode_message(commands.encode({"id": 1, "ok": any_json(dice)}, [dice.randbytes(9)]))
    try:
        parts = frames.decode_message(mutated(dice, data))
        commands.decode([document(dice, {"id": 1, "do": "start"}), *parts[1:]])
    except frames.ProtocolError:
        return False
    return True


def records(dice: random.Random) -> bool:
    """Records of the socket pair between the server and its child."""
    decoder = RecordDecoder()
    try:
        for piece in pieces(dice, mutated(dice, encode({"client": ID, "answer": any_json(dice)}, [b"raw"]) * 2)):
            decoder.feed(piece)
    except frames.ProtocolError:
        return False
    return True


def a_message(dice: random.Random, kind: str = "status") -> Message:
    """Give a message of a kernel whose documents are of any kind."""
    header = {"msg_id": "1", "msg_type": kind, "session": "s"}
    content = {"execution_state": "idle", "status": "ok", "name": "stdout", "text": "x", "wait": True}
    documents = (header, {"msg_id": "0", "msg_type": "execute_request"}, {}, content)
    header_, parent, metadata, content_ = (document(dice, one) for one in documents)
    return Message(
        (b"id",), header_, parent, metadata, content_, tuple(dice.randbytes(3) for _ in range(dice.randrange(3)))
    )


def v1_websocket(dice: random.Random) -> bool:
    try:
        v1.decode(mutated(dice, v1.encode(dice.choice(list(Channel)), a_message(dice))))
    except MalformedMessageError:
        return False
    return True


def json_websocket(dice: random.Random) -> bool:
    data = legacy.encode(dice.choice(list(Channel)), a_message(dice))
    raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
    changed = mutated(dice, raw)
    try:
        legacy.decode(changed.decode("utf-8", "replace") if isinstance(data, str) else changed)
    except MalformedMessageError:
        return False
    return True


def jupyter_messages(dice: random.Random) -> bool:
    """Multiparts of a kernel, and what is decoded of them."""
    parts = Signer(b"key").pack(a_message(dice))
    changed = [mutated(dice, part) if dice.random() < 0.1 else part for part in parts if dice.random() > 0.03]
    try:
        message = Signer(b"key").unpack(changed, check=dice.random() < 0.1)
        message.header_dict()
        message.parent_dict()
        message.content_dict()
    except MalformedMessageError:
        return False
    return True


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


def strict_json(dice: random.Random) -> bool:
    """What a front end gets is JSON that a browser reads, or nothing."""
    message = a_message(dice)
    if dice.random() < 0.2:
        padding = b'"' + b"x" * 70_000 + b'"'
        message = message._replace(content=b'{"pad": %s, "value": %s}' % (padding, message.content))
    try:
        strict = strict_message(message)
    except MalformedMessageError:
        return False
    for part in strict[1:5]:
        if len(part) < 65536:
            json.loads(part.decode(errors="replace"), parse_constant=refuse)
    return True


TUNNEL = {
    "endpoints": [{"connectionMode": "TunnelRelay", "clientRelayUri": "wss://relay", "hostPublicKeys": ["a2V5"]}],
    "ports": [{"portNumber": 2222, "labels": ["x"]}],
}
_NAMES = ("connectAccessToken", "managePortsAccessToken", "serviceUri", "tunnelId", "clusterId", "domain")
PROPERTIES = dict.fromkeys(_NAMES, "x")


def tunnel_answers(dice: random.Random) -> bool:
    """A tunnel object of the management API, and what GitHub says of it."""
    try:
        endpoint = TunnelEndpoint.from_json(bent(dice, TUNNEL) if dice.random() < 0.9 else any_json(dice))
        TunnelProperties.from_json({**PROPERTIES, "tunnelId": any_json(dice)})
    except TunnelError:
        return False
    assert endpoint.relay_uri.startswith(("ws://", "wss://"))
    assert all(isinstance(key, str) for key in endpoint.host_public_keys)
    return True


def errors(dice: random.Random) -> bool:
    """An error that crossed a process border."""
    error = error_from_json(bent(dice, {"type": "KernelError", "message": "no", "url": "https://x"}))
    assert isinstance(error, CodespaceKernelsError)
    return True


def script_output(dice: random.Random) -> bool:
    """A line of our script in the workspace."""
    line = b"codespace-kernels: " + document(dice, {"result": "link", "versions": {}})
    found = parse_report(line)
    assert found is None or isinstance(found, dict)
    return found is not None


def zmtp_stream(dice: random.Random) -> bytes:
    """Give what a ZMQ socket might send."""
    data = GREETING + ready(dice.choice((b"DEALER", b"SUB", b"REQ")), dice.choice((b"", b"me")))
    for _ in range(dice.randrange(8)):
        frames = [dice.randbytes(dice.choice((0, 3, 255, 256, 9000))) for _ in range(dice.randrange(1, 4))]
        command = dice.choice(
            (b"\x04PING\x00\x01c", b"\x09SUBSCRIBEt", b"\x06CANCELt", b"\x05ERROR\x01x", b"\x01?", b"")
        )
        messages = (b"".join(encode_message(frames)), bytes((4, len(command))) + command, b"\x00\x02\x01t")
        data += dice.choice(messages)
    return data


def zmtp_peer(dice: random.Random) -> bool:
    """What connects to a kernel's ports says something, or is refused by name; no more is kept than it may send."""
    limit = dice.choice((1000, 100_000))
    peer = Peer(dice.choice((b"ROUTER", b"XPUB")), Null, limit)
    try:
        for piece in pieces(dice, mutated(dice, zmtp_stream(dice))):
            for event in peer.receive_data(piece) if piece else ():
                assert isinstance(event, Ready | Subscription) or sum(map(len, event)) <= limit
            assert peer.kept <= max(limit, 8192) + 100
            assert len(peer.data_to_send()) < 300
    except ZmtpError:
        return False
    return peer.ready


def zmtp_curve(dice: random.Random) -> bool:
    """The same with CurveZMQ: nobody gets in, whatever is said, and a good first command is answered."""
    keys = CurveKeys.generate()
    peer = Peer(b"ROUTER", functools.partial(CurveServer, keys), 100_000)
    public, secret = bindings.crypto_box_keypair()
    counter = dice.choice((b"\0" * 7 + b"\1", bytes(8)))
    box = bindings.crypto_box(bytes(64), b"CurveZMQHELLO---" + counter, keys.public, secret)
    hello = b"\x05HELLO\x01\0" + bytes(72) + public + counter + box
    initiate = b"\x08INITIATE" + dice.randbytes(dice.choice((0, 100, 300)))
    data = GREETING.replace(b"NULL\0", b"CURVE")
    for command in (hello, *dice.choices((hello, initiate, b"\x05READY", b"\x07MESSAGE"), k=dice.randrange(3))):
        data += b"\x06" + len(command).to_bytes(8, "big") + command
    data = mutated(dice, data, 2)
    peer.data_to_send()
    try:
        for piece in pieces(dice, data):
            assert not (peer.receive_data(piece) if piece else [])
    except ZmtpError:
        return False
    finally:
        welcomed = peer.data_to_send()
        assert not peer.ready
    return len(welcomed) == 170


TARGETS: dict[str, Callable[[random.Random], bool]] = {
    target.__name__: target
    for target in (
        link_frames,
        link_session,
        link_messages,
        records,
        v1_websocket,
        json_websocket,
        jupyter_messages,
        strict_json,
        tunnel_answers,
        errors,
        script_output,
        zmtp_peer,
        zmtp_curve,
    )
}
