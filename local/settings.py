"""What the person at the terminal asks for, by environment. Standard library only: read before
anything is installed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local import CannotRun

ROOT = Path(__file__).resolve().parent.parent
PARAMETER = "WEIR_PARAM_"
ENVIRONMENT = "WEIR_ENV_"


@dataclass(frozen=True)
class Upstream:
    base_url: str
    model: str
    api_key: str
    output_cap_parameter: str
    # USD for a million tokens. None: as in the list of known models.
    input_price: str | None = None
    output_price: str | None = None
    # Whether it may produce output that it does not show. None: as in that list, or else it may.
    hidden_reasoning: bool | None = None
    # None: not known.
    context_tokens: int | None = None
    # Whether the same model answers embeddings.
    embeds: bool = False


@dataclass(frozen=True)
class Settings:
    port: int
    # None: no example page.
    page_port: int | None
    # Logs, .local/env, the control socket: what belongs to one run. What is installed lies in
    # .local always.
    directory: Path
    # None: the embedded model.
    upstream: Upstream | None
    allowed_origins: str | None
    # Names of this machine, besides those that always are.
    allowed_hosts: tuple[str, ...]
    # Template parameters given as WEIR_PARAM_<Name>.
    parameters: dict[str, str]
    # Variables of every function, instead of the template's, given as WEIR_ENV_<NAME>.
    environment: dict[str, str]
    most_processes: int
    wait_s: float
    # As a deployment leaves it: no project, no model, no user.
    empty: bool = False


def from_env(env: Mapping[str, str]) -> Settings:
    return Settings(
        port=_number(env, "PORT", 9347, at_most=65535),
        page_port=(
            None
            if env.get("HEADLESS", "0") not in ("", "0")
            else _number(env, "PAGE_PORT", 5173, at_most=65535)
        ),
        directory=Path(env.get("WEIR_LOCAL_DIR") or ROOT / ".local").resolve(),
        upstream=_upstream(env),
        allowed_origins=env.get("ALLOWED_ORIGINS") or None,
        allowed_hosts=_hosts(env),
        parameters=_named(env, PARAMETER),
        environment=_named(env, ENVIRONMENT),
        most_processes=max(1, _number(env, "WEIR_MAX_PROCESSES", 32, at_most=1000)),
        wait_s=_number(env, "WEIR_MAX_WAIT_S", 5, at_most=600),
        empty=env.get("WEIR_EMPTY", "0") not in ("", "0"),
    )


def _named(env: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Return what is given under names that begin so, without that beginning."""
    return {n.removeprefix(prefix): value for n, value in env.items() if n.startswith(prefix)}


def _number(env: Mapping[str, str], name: str, default: int, *, at_most: int) -> int:
    value = env.get(name) or str(default)
    if not re.fullmatch("[0-9]{1,9}", value) or int(value) > at_most:
        raise CannotRun(f"{name} must be a number from 0 to {at_most}, not {value!r}.")
    return int(value)


def _hosts(env: Mapping[str, str]) -> tuple[str, ...]:
    names = tuple(env.get("ALLOWED_HOSTS", "").replace(",", " ").split())
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            raise CannotRun(f"ALLOWED_HOSTS must be names, without scheme and port, not {name!r}.")
    return names


def _upstream(env: Mapping[str, str]) -> Upstream | None:
    base_url = env.get("UPSTREAM_BASE_URL", "").strip().rstrip("/")
    if not base_url:
        return None
    if not re.match("https?://[^ ]+", base_url):
        raise CannotRun(f"UPSTREAM_BASE_URL must begin with http:// or https://, not {base_url!r}.")
    model = env.get("UPSTREAM_MODEL", "").strip()
    if not model:
        raise CannotRun(
            "UPSTREAM_BASE_URL is set: set UPSTREAM_MODEL, too, to its name of the model."
        )
    return Upstream(
        base_url,
        model,
        env.get("UPSTREAM_API_KEY", "").strip(),
        env.get("UPSTREAM_OUTPUT_CAP_PARAMETER", "").strip() or "max_completion_tokens",
        _price(env, "UPSTREAM_PRICE_INPUT"),
        _price(env, "UPSTREAM_PRICE_OUTPUT"),
    )


def _price(env: Mapping[str, str], name: str) -> str | None:
    value = env.get(name, "").strip()
    if value and not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value):
        raise CannotRun(f"{name} must be an amount of USD for a million tokens, not {value!r}.")
    return value or None
