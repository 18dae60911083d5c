"""The store that both relays ask: the embedded AWS, with one table and one secret in it. Weir's
configuration is written as an operator would write it.

Also a proxy in front of it that counts, used only while round trips are counted: it costs time.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import threading
import time
import uuid
from collections import Counter
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

    def configure(self, upstream: str) -> None:
        """One provider at this base URL, its key, one model, one project."""
        does = Operator(
            Table(self._client("dynamodb"), TABLE),
            ProviderKeys(self._client("secretsmanager"), SECRET),
            actor="make bench",
        )
        does.put_upstream(
            UPSTREAM, parsed(UpstreamDocument, {"kind": "openai", "base_url": upstream})
        )
        does.set_provider_key(UPSTREAM, PROVIDER_KEY)
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
            "max_output_tokens": 32_768,
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
                "max_output_tokens": 32_768,
            },
        }
        does.create_project(parsed(NewProject, project))

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


class CountingProxy:
    """Passes bytes on to the store and counts what is asked of it, by operation."""

    _OPERATION = re.compile(rb"(?i)\r\nx-amz-target: *[^\r]*?\.([A-Za-z]+)\r\n")

    def __init__(self, endpoint: str) -> None:
        self._upstream = ("127.0.0.1", int(endpoint.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._counted: Counter[str] = Counter()
        threading.Thread(target=self._accept, daemon=True).start()

    def counted(self) -> Counter[str]:
        """Since it was last asked."""
        counted, self._counted = self._counted, Counter()
        return counted

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            upstream = socket.create_connection(self._upstream)
            for one, other, counts in ((client, upstream, True), (upstream, client, False)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pass, args=(one, other, counts), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        try:
            while data := source.recv(65536):
                if counts:
                    for operation in self._OPERATION.findall(data):
                        self._counted[operation.decode()] += 1
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # one of them has hung up
