"""A wire over TLS: reading and sending overlap, in two threads, on one TLS object."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from codespace_kernels.ssh.wire import SocketWire
from tests.ssh.conftest import WAIT
from tests.ssh.test_connection import read_exactly


def make_certificate(path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))


@pytest.fixture
async def tls_wire(sshd, tmp_path):
    """A TLS connection to a server that passes everything on to sshd."""
    make_certificate(tmp_path / "pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    tasks = []

    async def copy(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader, writer):
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", sshd.port)
        tasks.extend(asyncio.create_task(copy(*p)) for p in ((reader, other_writer), (other_reader, writer)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]

    def open_wire():
        trust = ssl.create_default_context(cafile=tmp_path / "pem")
        return SocketWire(
            trust.wrap_socket(socket.create_connection(("127.0.0.1", port), 10), server_hostname="localhost")
        )

    yield await asyncio.to_thread(open_wire)
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_both_directions_at_once(connect, tls_wire):
    connection = await connect(wire=tls_wire)
    stream = await connection.open_command("cat")
    data = os.urandom(1_000_000) * 20
    _, echoed = await asyncio.gather(stream.write(data), read_exactly(stream, len(data)))
    assert echoed == data
    assert (await connection.run("echo small")).stdout == b"small\n"


async def test_close_while_idle(connect, tls_wire):
    connection = await connect(wire=tls_wire)
    await asyncio.wait_for(connection.close(), WAIT)
