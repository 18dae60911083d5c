"""Read the gateway's address and the server's key, from arguments or the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from weir_client._errors import ConfigurationError
from weir_client._signing import Signer

MINTING_PREFIX = "behest_sk_live_"
CUSTOMERS_PREFIXES = ("sk_live_", "sk_test_")

Mode = Literal["mint", "sign", "customers"]


@dataclass(frozen=True)
class Settings:
    """Describe which gateway is called, and as whom.

    Attributes:
        base_url: The gateway's address, without `/v1` and without a slash at the end.
        mode: "mint": the API key is exchanged for user tokens. "sign": this server signs them.
            "customers": the API key is for customers and client tokens.
        api_key: None in mode "sign".
        signer: None except in mode "sign".
    """

    base_url: str
    mode: Mode
    api_key: str | None = field(repr=False)
    signer: Signer | None = field(repr=False)


def read(
    *,
    key: str | None = None,
    base_url: str | None = None,
    kid: str | None = None,
    tenant_id: str | None = None,
    project_id: str | None = None,
    env: Mapping[str, str] = os.environ,
) -> Settings:
    """Return the settings: arguments first, then WEIR_ variables, then BEHEST_ variables.

    Raises:
        ConfigurationError: One is missing, or the key has none of the known forms.
    """
    address = _setting("base_url", base_url, env).strip().rstrip("/").removesuffix("/v1")
    if not address.startswith(("http://", "https://")):
        raise ConfigurationError(f"The base_url must begin with https://, and is {address!r}.")
    secret = _setting("key", key, env).strip()
    if secret.startswith(MINTING_PREFIX):
        return Settings(address, "mint", secret, None)
    if secret.startswith(CUSTOMERS_PREFIXES):
        return Settings(address, "customers", secret, None)
    signer = Signer.load(
        secret,
        kid=lambda: _setting("kid", kid, env),
        tenant_id=lambda: _setting("tenant_id", tenant_id, env),
        project_id=lambda: _setting("project_id", project_id, env),
    )
    return Settings(address, "sign", None, signer)


def _setting(name: str, given: str | None, env: Mapping[str, str]) -> str:
    variables = [f"{prefix}_{name.upper()}" for prefix in ("WEIR", "BEHEST")]
    value = given or next((env[variable] for variable in variables if env.get(variable)), None)
    if not value:
        raise ConfigurationError(
            f"Set {variables[0]} or {variables[1]}, or pass {name}=.", param=name
        )
    return value
