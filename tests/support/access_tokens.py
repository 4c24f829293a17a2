"""An identity provider: signing keys, tokens that are right or wrong in one thing, and its JWKS over HTTP."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ISSUER: Final = "https://login.example"
AUDIENCE: Final = "beamline"
LIFETIME_SECONDS: Final = 600

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def part(value: object) -> str:
    """One part of a token: JSON, or text and bytes as they are, in base64url without padding."""
    match value:
        case bytes():
            raw = value
        case str():
            raw = value.encode()
        case _:
            raw = json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def hs256(header: object, claims: object, secret: bytes) -> str:
    """A token made by hand and signed with a shared secret; header and claims may be texts that are no JSON object."""
    signed = f"{part(header)}.{part(claims)}"
    return f"{signed}.{part(hmac.digest(secret, signed.encode(), 'sha256'))}"


class SigningKey:
    """A key of the provider. ``kind``: ``RSA`` (signs RS256) or ``EC`` (ES256)."""

    def __init__(self, kid: str | None, kind: str = "RSA") -> None:
        self.kid = kid
        self.algorithm = "RS256" if kind == "RSA" else "ES256"
        self.private: PrivateKey = (
            rsa.generate_private_key(public_exponent=65537, key_size=2048)
            if kind == "RSA"
            else ec.generate_private_key(ec.SECP256R1())
        )

    def jwk(self, **more: Any) -> dict[str, Any]:
        """Its public half as the JWKS has it; ``more`` adds or replaces fields, None takes one away."""
        public = self.private.public_key()
        document = (
            RSAAlgorithm.to_jwk(public, as_dict=True)
            if isinstance(public, rsa.RSAPublicKey)
            else ECAlgorithm.to_jwk(public, as_dict=True)
        )
        fields = {**document, "kid": self.kid, "use": "sig", "alg": self.algorithm, **more}
        return {name: value for name, value in fields.items() if value is not None}

    def private_jwk(self) -> dict[str, Any]:
        """What must never be published."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            return RSAAlgorithm.to_jwk(self.private, as_dict=True)
        return ECAlgorithm.to_jwk(self.private, as_dict=True)

    def public_pem(self) -> bytes:
        """Its public half as everybody can read it."""
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, header: object, claims: object) -> str:
        """A token of any two parts, objects or texts, with a signature that is right."""
        signed = f"{part(header)}.{part(claims)}"
        if isinstance(self.private, rsa.RSAPrivateKey):
            raw = self.private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        else:
            numbers = decode_dss_signature(
                self.private.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
            )
            raw = b"".join(number.to_bytes(32, "big") for number in numbers)
        return f"{signed}.{part(raw)}"

    def header(self, **more: Any) -> dict[str, Any]:
        """The header of its tokens."""
        named = {} if self.kid is None else {"kid": self.kid}
        return {"alg": self.algorithm, "typ": "JWT", **named, **more}

    def token(self, **claims: Any) -> str:
        """A token of `valid_claims`; ``claims`` adds or replaces some, None takes one away."""
        return self.sign(self.header(), valid_claims(**claims))


def valid_claims(**more: Any) -> dict[str, Any]:
    """The claims of an administrator of tenant ``acme``; ``more`` adds or replaces some, None takes one away."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "somebody",
        "iat": now,
        "exp": now + LIFETIME_SECONDS,
        "tenant_id": "acme",
        "roles": ["admin"],
        **more,
    }
    return {name: value for name, value in claims.items() if value is not None}


def jwks(*keys: SigningKey | Mapping[str, Any]) -> bytes:
    """The document that holds these keys."""
    entries = [key.jwk() if isinstance(key, SigningKey) else dict(key) for key in keys]
    return json.dumps({"keys": entries}).encode()


def environment(**source: str) -> dict[str, str]:
    """``AUTH_MODE=jwt`` for this provider; ``source``: JWT_JWKS_FILE, JWT_JWKS_URL or JWT_SECRET."""
    return {"AUTH_MODE": "jwt", "JWT_ISSUER": ISSUER, "JWT_AUDIENCE": AUDIENCE, **source}


def unverified_claims(token: str) -> dict[str, Any]:
    """What a token says, whoever signed it."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


class JwksServer:
    """The provider's JWKS over HTTP on a free port; ``asked`` counts the requests.

    ``document`` is what it answers. ``status`` and ``headers`` make it answer something else, ``hold`` lets requests
    wait until `release`, ``drip_seconds`` pauses after every byte.
    """

    def __init__(self, document: bytes) -> None:
        self.document = document
        self.status = 200
        self.headers: dict[str, str] = {}
        self.drip_seconds = 0.0
        self.asked = 0
        self._asked_lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        self._ended = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="jwks", daemon=True
        )
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/jwks.json"

    def hold(self) -> None:
        """Answer nobody until `release`."""
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._open.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request. Called by the server."""
        with self._asked_lock:
            self.asked += 1
        self._open.wait()
        handler.send_response(self.status)
        for name, value in {"Content-Length": str(len(self.document)), **self.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if not self.drip_seconds:
            handler.wfile.write(self.document)
            return
        for byte in self.document:
            if self._ended.wait(self.drip_seconds):
                return
            handler.wfile.write(bytes([byte]))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that gave up is what some tests are about."""


def _handler(server: JwksServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    return Handler
