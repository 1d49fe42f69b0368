"""How far the way to a host leads: name, connection, proxy, TLS, each told apart since each is mended elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import os
import socket
import ssl
from typing import TYPE_CHECKING

import certifi
import httpx
from cryptography import x509
from cryptography.x509.oid import NameOID

from codespace_kernels.errors import SettingsError, WaitTimeoutError
from codespace_kernels.ssh.threads import run_blocking
from codespace_kernels.tunnel.relay import proxy_for, proxy_headers

if TYPE_CHECKING:
    import urllib.parse
    from collections.abc import AsyncIterator

STEP_SECONDS = 6.0
"""For each of name, connection, proxy and TLS."""


class Step(enum.StrEnum):
    """A part of the way to a host."""

    NAME = "name"
    CONNECTION = "connection"
    PROXY = "proxy"
    TLS = "TLS"


@dataclasses.dataclass(frozen=True)
class Place:
    """A host that must be reached.

    Attributes:
        host, port: Where.
        secure: Whether TLS is spoken there.
    """

    host: str
    port: int = 443
    secure: bool = True

    @classmethod
    def of(cls, url: str) -> Place:
        """Give the place of an address; `http` and `ws` are not secure."""
        parsed = httpx.URL(url)
        secure = parsed.scheme in ("https", "wss")
        return cls(parsed.host, parsed.port or (443 if secure else 80), secure)

    def __str__(self) -> str:
        return self.host if self.port == (443 if self.secure else 80) else f"{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True)
class Reach:
    """How far the way to a place led.

    Attributes:
        place: The place.
        failed: The step that failed; None where it was reached.
        why: Of the failure, a few words.
        proxy: Host and port of the proxy that it leads through; empty for none.
        issuer: Who signed the certificate; empty where there is none or it cannot be read.
        is_public: Whether a public authority vouches for the certificate: one of those that certifi knows.
        trusted_by_system: Whether the operating system trusts the certificate.
    """

    place: Place
    failed: Step | None = None
    why: str = ""
    proxy: str = ""
    issuer: str = ""
    is_public: bool = True
    trusted_by_system: bool = False


class _StepError(Exception):
    def __init__(self, step: Step, why: str) -> None:
        super().__init__(why)
        self.step = step
        self.why = why


def trust() -> ssl.SSLContext:
    """Give the TLS settings that everything in this package uses.

    Raises:
        SettingsError: `SSL_CERT_FILE` or `SSL_CERT_DIR` names what cannot be used.
    """
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        name = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
        raise SettingsError(
            f"{name} is {os.environ.get(name, '')}, which holds no certificates that can be read "
            f"({error.strerror or error}). Correct it, or unset it."
        ) from None


async def reach(place: Place, *, through_proxy: bool = True) -> Reach:
    """Go to a place as a request would; every step is bounded.

    Args:
        place: Where.
        through_proxy: Whether the proxy that is set for it, if any, is used.

    Raises:
        SettingsError: As `trust`.
    """
    context = trust()
    proxy = proxy_for(place.host, secure=place.secure) if through_proxy else None
    through = f"{proxy.hostname}:{proxy.port or 80}" if proxy else ""
    try:
        # Without one the name is looked up here, with one there.
        if proxy is None:
            await _look_up(place)
        if not place.secure:
            async with _connected(place, proxy):
                return Reach(place, proxy=through)
        return await _reach_by_tls(place, proxy, through, context)
    except _StepError as error:
        return Reach(place, error.step, error.why, through)


async def _reach_by_tls(
    place: Place, proxy: urllib.parse.SplitResult | None, through: str, context: ssl.SSLContext
) -> Reach:
    try:
        issuer = await _issuer(place, proxy, context)
    except ssl.SSLCertVerificationError as error:
        issuer = await _issuer(place, proxy, _anybody())
        by_system = await _is_trusted(place, proxy, ssl.create_default_context())
        return Reach(place, Step.TLS, error.verify_message, through, issuer, False, by_system)
    own_authorities = bool(os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"))
    public = ssl.create_default_context(cafile=certifi.where())
    is_public = not own_authorities or await _is_trusted(place, proxy, public)
    return Reach(place, proxy=through, issuer=issuer, is_public=is_public)


async def _look_up(place: Place) -> None:
    try:
        await run_blocking("a name", STEP_SECONDS, socket.getaddrinfo, place.host, place.port)
    except WaitTimeoutError:
        raise _StepError(Step.NAME, f"no answer within {STEP_SECONDS:g} s") from None
    except (OSError, UnicodeError) as error:
        raise _StepError(Step.NAME, getattr(error, "strerror", None) or str(error)) from None


@contextlib.asynccontextmanager
async def _connected(
    place: Place, proxy: urllib.parse.SplitResult | None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open TCP to the place, through the proxy where there is one."""
    step = Step.PROXY if proxy else Step.CONNECTION
    host, port = (proxy.hostname or "", proxy.port or 80) if proxy else (place.host, place.port)
    try:
        # Not by the loop: it looks names up in threads that hold up the program's end when they hang.
        sock = await run_blocking(
            "a connection",
            STEP_SECONDS,
            socket.create_connection,
            (host, port),
            STEP_SECONDS,
            discard=socket.socket.close,
        )
    except (TimeoutError, WaitTimeoutError):
        raise _StepError(step, f"no answer within {STEP_SECONDS:g} s") from None
    except OSError as error:
        raise _StepError(step, error.strerror or str(error)) from None
    sock.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        if proxy is not None:
            await _ask_proxy(reader, writer, place, proxy)
        yield reader, writer
    finally:
        writer.close()


async def _ask_proxy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, place: Place, proxy: urllib.parse.SplitResult
) -> None:
    headers = "".join(f"{name}: {value}\r\n" for name, value in proxy_headers(proxy).items())
    target = f"{place.host}:{place.port}"
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{headers}\r\n".encode())
    try:
        async with asyncio.timeout(STEP_SECONDS):
            answer = await reader.readuntil(b"\r\n\r\n")
    except TimeoutError:
        raise _StepError(Step.PROXY, f"it did not answer within {STEP_SECONDS:g} s") from None
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise _StepError(Step.PROXY, "it hung up") from None
    words = answer.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    if len(words) < 2 or not words[1].startswith("2"):
        raise _StepError(Step.PROXY, f"it refuses: {' '.join(words[1:])[:80] or 'no HTTP'}")


async def _issuer(place: Place, proxy: urllib.parse.SplitResult | None, context: ssl.SSLContext) -> str:
    """Speak TLS; give who signed the certificate.

    Raises:
        ssl.SSLCertVerificationError: The context does not trust it.
    """
    async with _connected(place, proxy) as (_, writer):
        try:
            async with asyncio.timeout(STEP_SECONDS):
                await writer.start_tls(context, server_hostname=place.host)
        except TimeoutError:
            raise _StepError(Step.TLS, f"no answer within {STEP_SECONDS:g} s") from None
        except ssl.SSLCertVerificationError:
            raise
        except (OSError, EOFError) as error:
            raise _StepError(Step.TLS, getattr(error, "reason", "") or str(error) or "it hung up") from None
        return _issuer_of(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))


def _issuer_of(der: bytes | None) -> str:
    try:
        issuer = x509.load_der_x509_certificate(der or b"").issuer
    except ValueError:
        return ""
    names = [
        *issuer.get_attributes_for_oid(NameOID.ORGANIZATION_NAME),
        *issuer.get_attributes_for_oid(NameOID.COMMON_NAME),
    ]
    return ", ".join(dict.fromkeys(str(name.value) for name in names)) or issuer.rfc4514_string()


async def _is_trusted(place: Place, proxy: urllib.parse.SplitResult | None, context: ssl.SSLContext) -> bool:
    try:
        await _issuer(place, proxy, context)
    except (ssl.SSLCertVerificationError, _StepError):
        return False
    return True


def _anybody() -> ssl.SSLContext:
    """Give TLS settings that trust everybody: nothing but the certificate is read, and nothing sent."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
