"""Access tokens of the emulated tunnel service: signed JSON web tokens, as the real service's are.

Claims are those that the dev-tunnels SDKs read: `clusterId`, `tunnelId`, `scp`, `iss`, `exp`, `iat`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from typing import Any

_HEADER = {"alg": "HS256", "typ": "JWT"}


class TokenError(Exception):
    """A token is missing, forged, expired, or of another tunnel."""


class TokenIssuer:
    """Makes and checks tokens with a key that only this object has.

    Args:
        issuer: Address of the service, for the `iss` claim.
    """

    def __init__(self, issuer: str = "https://tunnels.api.visualstudio.com/") -> None:
        self._issuer = issuer
        self._key = secrets.token_bytes(32)
        self._made = 0
        self._expired: dict[str | None, int] = {}

    def mint(self, tunnel_id: str, cluster_id: str, scope: str, lifetime: float) -> str:
        """Make a token.

        Args:
            tunnel_id: The only tunnel it opens.
            cluster_id: That tunnel's cluster.
            scope: One or more scopes, separated by spaces.
            lifetime: Seconds until it expires; negative for one that has.
        """
        now = int(time.time())
        self._made += 1
        claims = {
            "clusterId": cluster_id,
            "tunnelId": tunnel_id,
            "scp": scope,
            "iss": self._issuer,
            "iat": now,
            "exp": now + int(lifetime),
            # Two tokens of the same second are different tokens.
            "jti": f"{self._made}-{secrets.token_hex(8)}",
        }
        body = f"{_encode(json.dumps(_HEADER).encode())}.{_encode(json.dumps(claims).encode())}"
        return f"{body}.{self._signature(body)}"

    def expire(self, tunnel_id: str | None) -> None:
        """Let all tokens expire that were made so far for a tunnel (None: for any)."""
        self._expired[tunnel_id] = self._made

    def scopes(self, token: str, tunnel_id: str) -> set[str]:
        """Check a token and give its scopes.

        Raises:
            TokenError: It was not made here, has expired, or belongs to another tunnel.
        """
        body, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(body).encode()):
            raise TokenError("The token's signature is not valid.")
        claims = _claims(body)
        if claims.get("tunnelId") != tunnel_id:
            raise TokenError("The token belongs to another tunnel.")
        number = int(str(claims["jti"]).partition("-")[0])
        expired = max(self._expired.get(tunnel_id, 0), self._expired.get(None, 0))
        if claims["exp"] <= time.time() or number <= expired:
            raise TokenError("The token has expired.")
        return set(str(claims["scp"]).split())

    def _signature(self, body: str) -> str:
        return _encode(hmac.new(self._key, body.encode(), hashlib.sha256).digest())


def _claims(body: str) -> dict[str, Any]:
    payload = body.partition(".")[2]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (binascii.Error, ValueError):
        raise TokenError("The token cannot be read.") from None
    assert isinstance(claims, dict)
    return claims


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
