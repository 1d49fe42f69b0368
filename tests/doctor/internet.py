"""A small internet on loopback: an authority, HTTPS servers that it vouches for, and a proxy that leads to them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import json
import ssl
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ISSUER = "Canary Inspection"


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, text)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


class Authority:
    """Signs certificates; `file` is its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / "authority.pem"
        certificate = self._sign(_name(ISSUER), self._key, x509.BasicConstraints(ca=True, path_length=None))
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: Any) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(_name(ISSUER))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self._key, hashes.SHA256())

    def context(self, *names: str) -> ssl.SSLContext:
        """TLS settings of a server of these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        certificate = self._sign(_name(names[0]), key, alternatives, x509.BasicConstraints(ca=False, path_length=None))
        file = self._folder / f"{names[0]}.pem"
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + _pem(key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


class Internet:
    """Servers and a proxy; an asynchronous context manager.

    Args:
        authority: Vouches for the servers.
        names: Of the hosts that there are; all answer on one port, as GitHub's API would.
        login: `user:password` that the proxy wants.
    """

    def __init__(self, authority: Authority, *names: str, login: str = "") -> None:
        self._authority = authority
        self._names = names
        self._login = login
        self.requests: list[str] = []

    async def __aenter__(self) -> Self:
        context = self._authority.context(*self._names)
        self._tls = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=context)
        self._proxy = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        login = f"{self._login}@" if self._login else ""
        self.proxy = f"http://{login}127.0.0.1:{self._port(self._proxy)}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        for server in (self._proxy, self._tls):
            server.close()

    @staticmethod
    def _port(server: asyncio.Server) -> int:
        return server.sockets[0].getsockname()[1]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
            self.requests.append(path)
            body = json.dumps({"login": "octocat"} if path == "/user" else {"domains": {}}).encode()
            head = (
                f"HTTP/1.1 200 OK\r\nX-GitHub-Request-Id: 1\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            status = self._status(head)
            writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
            await writer.drain()
            if status.startswith("200"):
                there = await asyncio.open_connection("127.0.0.1", self._port(self._tls))
                await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))
        writer.close()

    def _status(self, head: str) -> str:
        target = head.split(" ")[1].rpartition(":")[0]
        wanted = base64.b64encode(self._login.encode()).decode()
        if self._login and f"Basic {wanted}" not in head:
            return "407 Proxy Authentication Required"
        return "200 OK" if target in self._names else "403 Forbidden by rule 7"


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
