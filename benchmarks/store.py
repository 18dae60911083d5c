"""The store that both relays ask: the embedded AWS, with one table and one secret in it. Weir's
configuration is written as an operator would write it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks import ROOT, STATE
from local import embedded_aws, install, processes
from weir.aws.operator import Operator
from weir.aws.provider_keys import ProviderKeys
from weir.aws.rotation import make_signing_key
from weir.aws.table import Table
from weir.identity import keyring, tokens
from weir.identity.keyring import Kid
from weir.operator.documents import ModelDocument, NewProject, UpstreamDocument, parsed

TABLE, SECRET = "weir-bench", "weir-bench-provider-keys"
TENANT, PROJECT, USER = "t-bench", "default", "u_1"
UPSTREAM = MODEL = "bench"
# Of the pages in events/.
ORIGINS = ["http://localhost:3000", "http://localhost:5173"]
ISSUER = f"urn:weir:{TENANT}"
PROVIDER_KEY = "sk-bench"
TOKEN_TTL_S = 6 * 3600
# So many that an answer of 29 MB is not refused: its size is bounded by its tokens.
OUTPUT_TOKENS = 40_000


@dataclass(frozen=True)
class Credentials:
    token: str
    jwks: Path


class Store:
    """Runs inside `with`."""

    def __enter__(self) -> Store:
        install.install("aws")
        for folder in ("aws", "tmp", "logs"):
            shutil.rmtree(STATE / folder, ignore_errors=True)
            (STATE / folder).mkdir(parents=True)
        self._runner = asyncio.Runner()
        interpreter = ROOT / ".local" / "venv-aws" / "bin" / "python"
        self._child, self._port = self._runner.run(embedded_aws.start(interpreter, STATE))
        try:
            self.endpoint = self._runner.run(embedded_aws.until_ready(self._child, self._port))
            self.credentials = self._fill()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._runner.run(processes.stop([self._child], 1.0))
        self._runner.close()

    def point_at(self, upstream: str) -> None:
        """Give the one provider this base URL. Processes that run go on with the one they know."""
        document = parsed(UpstreamDocument, {"kind": "openai", "base_url": upstream})
        does = self._operator()
        does.put_upstream(UPSTREAM, document)
        does.set_provider_key(UPSTREAM, PROVIDER_KEY)  # a key is not sent to another address

    def configure(self, upstream: str) -> None:
        """One provider at this base URL, its key, one model, one project."""
        does = self._operator()
        self.point_at(upstream)
        candidate = {
            "upstream": UPSTREAM,
            "model": MODEL,
            "input_nano_usd": 100,
            "cached_input_nano_usd": 50,
            "output_nano_usd": 400,
        }
        model = {
            "candidates": [candidate],
            "context_tokens": 131_072,
            "max_output_tokens": OUTPUT_TOKENS,
            "overhead_tokens": 500,
        }
        does.put_model(MODEL, parsed(ModelDocument, model))
        # As many counters as there are by default, and limits that no run reaches.
        project = {
            "pid": PROJECT,
            "origins": ORIGINS,
            "default_model": MODEL,
            "limits": {"rpm": 10**9},
            "user_limits": {
                "rpm": 10**9,
                "tokens_per_day": 10**12,
                "concurrent_streams": 10**3,
                "max_output_tokens": OUTPUT_TOKENS,
            },
        }
        does.create_project(parsed(NewProject, project))

    def _operator(self) -> Operator:
        return Operator(
            Table(self._client("dynamodb"), TABLE),
            ProviderKeys(self._client("secretsmanager"), SECRET),
            actor="make bench",
        )

    def _client(self, service: str) -> Any:
        return embedded_aws.client(self.endpoint, service)

    def _fill(self) -> Credentials:
        dynamodb = self._client("dynamodb")
        dynamodb.create_table(
            TableName=TABLE,
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        # The FastAPI relay's user.
        dynamodb.put_item(
            TableName=TABLE,
            Item={"pk": {"S": f"USER#{USER}"}, "sk": {"S": "USER"}, "tier": {"S": "pro"}},
        )
        self._client("secretsmanager").create_secret(Name=SECRET, SecretString="{}")
        now = int(time.time())
        signing = make_signing_key(Kid("k_bench"))
        public = signing.public(now)
        Table(dynamodb, TABLE).publish(public)
        minted = tokens.mint(
            signing,
            issuer=ISSUER,
            tid=TENANT,
            pid=PROJECT,
            uid=USER,
            role="user",
            ttl_s=TOKEN_TTL_S,
            tier=None,
            session_id="s_bench",
            jti=str(uuid.uuid4()),
            now=now,
        )
        jwks = STATE / "jwks.json"
        jwks.write_text(json.dumps(keyring.jwks([public], now)))
        return Credentials(minted.value, jwks)


def aws_environment(endpoint: str) -> dict[str, str]:
    """What Lambda gives a process to speak to AWS with, and nothing of the operator's own."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": embedded_aws.REGION,
        "AWS_DEFAULT_REGION": embedded_aws.REGION,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
        **embedded_aws.ROOT,
    }
