"""What an operator would set up by hand after a deployment: one upstream with its key, one model
with its price, the mock provider, one project with its origins.
"""

from __future__ import annotations

import re
from decimal import Decimal

from local import CannotRun
from local.embedded_aws import Stack, client
from local.settings import Upstream
from weir.aws.operator import Operator
from weir.aws.provider_keys import ProviderKeys
from weir.aws.table import Table
from weir.operator import known_models
from weir.operator.documents import ModelDocument, NewProject, UpstreamDocument, parsed

UPSTREAM = "local"
MOCK_MODEL = "mock-echo"
# USD for a million tokens of the embedded model. It is free; but metering must show something.
BUDGET_USD = 1000
EMBEDDED_PRICES = ("0.10", "0.40")
# Of a model that is not in the list of known ones: nothing here depends on them being exact.
CONTEXT_TOKENS, OUTPUT_TOKENS = 131_072, 32_768
NANO_USD_PER_TOKEN = 1000  # of one USD for a million tokens


def operator(stack: Stack) -> Operator:
    return Operator(
        Table(client(stack.endpoint, "dynamodb"), stack.outputs["TableName"]),
        ProviderKeys(
            client(stack.endpoint, "secretsmanager"), stack.outputs["ProviderKeysSecretArn"]
        ),
        actor="make run",
    )


def set_up(stack: Stack, upstream: Upstream, origins: list[str]) -> str:
    """Returns the catalogue's name of the model. Blocks. Raises CannotRun without a price."""
    entry = model_entry(upstream)
    does = operator(stack)
    does.put_upstream(
        UPSTREAM, parsed(UpstreamDocument, {"kind": "openai", "base_url": upstream.base_url})
    )
    # A provider without keys (Ollama, say) ignores the bearer that it gets.
    does.set_provider_key(UPSTREAM, upstream.api_key or "none")
    name = model_name(upstream.model)
    does.put_model(name, entry)
    if upstream.embeds:
        does.put_model(f"{name}-embed", _embedding_entry(upstream.model))
    known = known_models.load()
    does.put_upstream(known_models.MOCK, known.upstreams[known_models.MOCK])
    does.put_model(MOCK_MODEL, known.models[MOCK_MODEL])
    does.create_project(
        parsed(
            NewProject,
            {
                "pid": stack.outputs["ProjectId"],
                "name": "make run",
                "origins": origins,
                "default_model": name,
                # Without a budget for all of them together no customers can be created.
                "limits": {"usd_per_month": BUDGET_USD},
            },
        )
    )
    return name


def model_name(upstream_model: str) -> str:
    """Return the catalogue's name of a provider's model: the same, as far as names may be so."""
    parts = re.sub(r"[^A-Za-z0-9._:/-]", "-", upstream_model).split("/")
    return "/".join(named for part in parts if (named := part.lstrip("._:-"))) or "model"


def model_entry(upstream: Upstream) -> ModelDocument:
    known = known_models.load().serving(upstream.base_url, upstream.model)
    if upstream.input_price is not None and upstream.output_price is not None:
        prices = [_nano_usd(upstream.input_price), _nano_usd(upstream.output_price)]
        told = {
            "context_tokens": upstream.context_tokens or CONTEXT_TOKENS,
            "max_output_tokens": min(upstream.context_tokens or OUTPUT_TOKENS, OUTPUT_TOKENS),
            "overhead_tokens": 500,
            "image_max_tokens": 2_000,
        }
    elif known is not None:
        first = known.candidates[0]
        prices = [first.input_nano_usd, first.output_nano_usd]
        told = known.stored()
    else:
        raise CannotRun(
            f"What does {upstream.model!r} cost? Weir refuses a model without a price. Set "
            "UPSTREAM_PRICE_INPUT and UPSTREAM_PRICE_OUTPUT, in USD for a million tokens; 0 is one."
        )
    hidden_reasoning = upstream.hidden_reasoning
    if hidden_reasoning is None:
        hidden_reasoning = known is None or known.hidden_reasoning
    candidate = {
        "upstream": UPSTREAM,
        "model": upstream.model,
        "input_nano_usd": prices[0],
        "cached_input_nano_usd": prices[0],
        "output_nano_usd": prices[1],
        "output_cap_parameter": upstream.output_cap_parameter,
    }
    reference = f"fc:{UPSTREAM}/{model_name(upstream.model)}"
    return parsed(
        ModelDocument,
        {
            **told,
            "aliases": [reference],
            "candidates": [candidate],
            "hidden_reasoning": hidden_reasoning,
        },
    )


def _embedding_entry(model: str) -> ModelDocument:
    """Of the embedded model, whose vectors have 576 numbers."""
    candidate = {
        "upstream": UPSTREAM,
        "model": model,
        "input_nano_usd": _nano_usd(EMBEDDED_PRICES[0]),
    }
    return parsed(
        ModelDocument,
        {
            "kind": "embedding",
            "dimensions": 576,
            "candidates": [candidate],
            "context_tokens": 2048,
            "overhead_tokens": 2,
        },
    )


def _nano_usd(usd_per_million: str) -> int:
    """Rounded up: never less than it costs."""
    return -int(-Decimal(usd_per_million) * NANO_USD_PER_TOKEN // 1)
