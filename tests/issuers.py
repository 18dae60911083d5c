"""Another issuer, for tests: its keys, and the tokens that it signs, or somebody forges."""

import base64
import functools
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://sign-in.example.com"
JWKS_URI = f"{ISSUER}/.well-known/jwks.json"
AUDIENCE = "my-app"
ENTRY: dict[str, Any] = {
    "issuer": ISSUER,
    "jwks_uri": JWKS_URI,
    "algs": ["RS256"],
    "audiences": [AUDIENCE],
}


@functools.cache
def private_key(kind: str, name: str = "one") -> Any:
    """`kind` is RS256, ES256, EdDSA, or another curve or size; making RSA keys is slow."""
    return {
        "RS256": lambda: rsa.generate_private_key(65537, 2048),
        "RSA-1024": lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "ES256K": lambda: ec.generate_private_key(ec.SECP256K1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }[kind]()


def jwk(kind: str = "RS256", name: str = "one", **members: Any) -> dict[str, Any]:
    """The public half, as an issuer publishes it; `members` are added, or taken away by None."""
    public = private_key(kind, name).public_key()
    algorithm: Any = {"R": RSAAlgorithm, "E": OKPAlgorithm}[kind[0]]
    algorithm = ECAlgorithm if kind.startswith("ES") else algorithm
    told = json.loads(algorithm.to_jwk(public))
    told = {"kid": f"{kind}-{name}", "use": "sig", **told, **members}
    told.pop("key_ops", None)
    return {n: v for n, v in told.items() if v is not None}


def jwks(*keys: Mapping[str, Any]) -> dict[str, Any]:
    return {"keys": [dict(key) for key in keys or (jwk(),)]}


def claims(now: int, **more: Any) -> dict[str, Any]:
    """Of a user who signed in a minute ago; None takes a claim away."""
    told = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "user_2abc",
        "iat": now - 60,
        "exp": now + 600,
        **more,
    }
    return {name: value for name, value in told.items() if value is not None}


def token(
    now: int,
    kind: str = "RS256",
    name: str = "one",
    header: Mapping[str, Any] | None = None,
    **more: Any,
) -> str:
    """A token that the issuer signs. `header` members are added, or taken away by None."""
    told = {"alg": kind, "typ": "JWT", "kid": f"{kind}-{name}", **(header or {})}
    told = {member: value for member, value in told.items() if value is not None}
    return signed(told, json.dumps(claims(now, **more)), kind, name)


def signed(header: Mapping[str, Any] | str, payload: str, kind: str, name: str = "one") -> str:
    """Whatever stands in it, signed by the key `kind`, `name`, as its own algorithm does."""
    text = header if isinstance(header, str) else json.dumps(header)
    signing_input = f"{part(text)}.{part(payload)}"
    algorithm = jwt.get_algorithm_by_name("RS256" if kind == "RSA-1024" else kind)
    signature = algorithm.sign(signing_input.encode(), private_key(kind, name))
    return f"{signing_input}.{encoded(signature)}"


def signed_with_secret(header: Mapping[str, Any], payload: str, secret: bytes) -> str:
    """HS256, with what the forger knows for a secret: the public key, say."""
    signing_input = f"{part(json.dumps(header))}.{part(payload)}"
    return f"{signing_input}.{encoded(hmac.digest(secret, signing_input.encode(), hashlib.sha256))}"


def part(text: str) -> str:
    return encoded(text.encode())


def encoded(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
