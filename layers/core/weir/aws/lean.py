"""Calls to AWS with the standard library alone, for what stands between a page and its answer.

The preflight function answers before any other is warm, and a page waits for its cold start; a chat
waits for the token's and the chat function's, and for their calls. Importing botocore costs more
than all else they import, and each of its calls four times as much (docs/decisions/0007). Operators
and rotation, who wait for nothing, use botocore (`weir/aws/clients.py`). Imports count here:
nothing that `http.client` does not bring anyway, beyond hashing and JSON.
"""

import errno
import functools
import hashlib
import hmac
import http.client
import json
import os
import ssl
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from weir.aws.contention import AwsError as AwsError  # what every call here raises
from weir.aws.contention import is_overload, retried
from weir.connections.http1 import Connection

# Inside one region a healthy call takes milliseconds; better an error than a page that hangs.
CONNECT_TIMEOUT_S = 2.0  # to dial, and again to speak TLS
READ_TIMEOUT_S = 3.0  # for each wait for bytes
# After a pause: a peer that has not even acknowledged a call for so long is gone.
UNACKNOWLEDGED_S = 0.3

# By service: the version of its JSON, and what its operations' names begin with.
_SERVICES = {
    "dynamodb": ("1.0", "DynamoDB_20120810."),
    "secretsmanager": ("1.1", "secretsmanager."),
}

_ENDPOINTS = {
    "dynamodb": "AWS_ENDPOINT_URL_DYNAMODB",
    "secretsmanager": "AWS_ENDPOINT_URL_SECRETS_MANAGER",
}

TRIES = 3
FIRST_WAIT_S = 0.05
MOST_WAIT_S = 0.1


class Api:
    """One service in one region, and the connection to it that a process keeps. One call at a
    time.
    """

    def __init__(
        self,
        service: str,
        region: str,
        endpoint: str,
        credentials: Mapping[str, str],
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        tries: int = TRIES,
    ) -> None:
        """`credentials` holds AWS_ACCESS_KEY_ID and its like, and is read again at each call.

        Raises ValueError if `endpoint` is not just http:// or https://, a host and maybe a port.
        """
        address = urlsplit(endpoint)
        excess = address.path.strip("/") or address.query
        if address.scheme not in ("http", "https") or not address.netloc or excess:
            raise ValueError("an endpoint must be http(s)://host or http(s)://host:port")
        self._service = service
        self._region = region
        self._host = address.netloc
        self._credentials = credentials
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._tries = tries
        self._connection = Connection(self._host, is_tls=address.scheme == "https")

    @classmethod
    def from_env(cls, service: str, env: Mapping[str, str], **how: Any) -> "Api":
        """As Lambda sets the environment. An endpoint is looked for where AWS's SDKs do."""
        region = env["AWS_REGION"]
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        endpoint = (
            env.get(_ENDPOINTS[service])
            or env.get("AWS_ENDPOINT_URL")
            or f"https://{service}.{region}.{suffix}"
        )
        return cls(service, region, endpoint, env, **how)

    def call(self, operation: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Calls `operation`, such as GetItem, with the JSON of AWS's API reference.

        What passes by itself is tried again, at most `tries` times. Raises AwsError for whatever
        goes wrong. AWS's own errors have a `code`.
        """
        body = json.dumps(payload).encode()
        return retried(
            lambda: self._call(operation, body),
            is_overload,
            tries=self._tries,
            first_wait_s=FIRST_WAIT_S,
            most_wait_s=MOST_WAIT_S,
        )

    def _call(self, operation: str, body: bytes) -> dict[str, Any]:
        headers = signed_headers(
            self._service,
            operation,
            body,
            self._host,
            self._region,
            self._credentials,
            time.time(),
        )
        try:
            with self._send(body, headers) as response:
                status, raw = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise AwsError(f"{operation} failed: {type(error).__name__}") from error
        self._connection.was_used()
        answer = _json_object(raw)
        if status == 200 and answer is not None:
            return answer
        if not 400 <= status < 500:  # a refusal that was read whole leaves the connection sound
            self.close()
        code = str((answer or {}).get("__type") or "").rpartition("#")[2] or None
        what = code or "not an answer of AWS"
        reasons = (answer or {}).get("CancellationReasons") or ()
        raise AwsError(f"{operation} failed: HTTP {status}, {what}", status, code, reasons)

    def close(self) -> None:
        """Closes the kept connection. The next call dials again."""
        self._connection.close()

    def _send(self, body: bytes, headers: dict[str, str]) -> http.client.HTTPResponse:
        channel = self._connection.sock
        if channel is not None and not channel.is_idle():
            self.close()
        kept = self._connection.sock is not None
        try:
            if channel is None or not kept or not self._connection.has_paused():
                return self._exchange(body, headers)
            channel.break_if_unacknowledged(UNACKNOWLEDGED_S)
            response = self._exchange(body, headers)
            channel.break_if_unacknowledged(0)
            return response
        except (OSError, http.client.BadStatusLine) as error:
            if not (kept and _is_of_a_dead_peer(error)):
                raise
        # A frozen process cannot notice that its peer went away. Once more, on a new connection:
        # should the first request have been carried out after all, GetItem, PutItem and UpdateItem
        # as used here leave the same item again (or a condition says that it is there already), and
        # a transaction is known by its token.
        self.close()
        return self._exchange(body, headers)

    def _exchange(self, body: bytes, headers: dict[str, str]) -> http.client.HTTPResponse:
        if self._connection.sock is None:
            self._connection.timeout = self._connect_timeout_s
            self._connection.connect()
        assert self._connection.sock is not None
        self._connection.sock.settimeout(self._read_timeout_s)
        self._connection.request("POST", "/", body, headers)
        return self._connection.getresponse()


@functools.cache
def client(service: str) -> "Client":
    """One a process: it keeps its connection. As Lambda sets the environment."""
    return Client(Api.from_env(service, os.environ))


def new_client(service: str) -> "Client":
    """With a connection of its own, for a thread of its own that soon tries again anyway. Dials
    when it is first used.
    """
    how: dict[str, Any] = {"connect_timeout_s": 1.0, "read_timeout_s": 1.0, "tries": 1}
    return Client(Api.from_env(service, os.environ, **how))


class Client:
    """The few methods of botocore's clients that we need, under the same names: `store.Store`, and
    one of Secrets Manager's.
    """

    def __init__(self, api: Api) -> None:
        self._api = api

    def query(self, **asked: Any) -> dict[str, Any]:
        return self._api.call("Query", asked)

    def scan(self, **asked: Any) -> dict[str, Any]:
        return self._api.call("Scan", asked)

    def get_item(self, **asked: Any) -> dict[str, Any]:
        return self._api.call("GetItem", asked)

    def batch_get_item(self, **asked: Any) -> dict[str, Any]:
        return self._api.call("BatchGetItem", asked)

    def put_item(self, **asked: Any) -> dict[str, Any]:
        return self._api.call("PutItem", asked)

    def update_item(self, **asked: Any) -> dict[str, Any]:
        return self._api.call("UpdateItem", asked)

    def delete_item(self, **asked: Any) -> dict[str, Any]:
        return self._api.call("DeleteItem", asked)

    def batch_write_item(self, **asked: Any) -> dict[str, Any]:
        return self._api.call("BatchWriteItem", asked)

    def transact_write_items(self, **asked: Any) -> dict[str, Any]:
        return self._api.call("TransactWriteItems", asked)

    def get_secret_value(self, **asked: Any) -> dict[str, Any]:
        return self._api.call("GetSecretValue", asked)


def signed_headers(
    service: str,
    operation: str,
    body: bytes,
    host: str,
    region: str,
    credentials: Mapping[str, str],
    at: float,
) -> dict[str, str]:
    """The headers of one call, signed with AWS Signature Version 4 at `at` (Unix seconds).

    Source: AWS IAM User Guide, "Create a signed AWS API request", whose steps these are. Raises
    AwsError if `credentials` has no usable AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    """
    access_key = _credential(credentials, "AWS_ACCESS_KEY_ID")
    secret_key = _credential(credentials, "AWS_SECRET_ACCESS_KEY")
    date_time = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    version, prefix = _SERVICES[service]
    headers = {  # in the order of their names in lower case, as they are signed
        "Content-Type": f"application/x-amz-json-{version}",
        "Host": host,
        "X-Amz-Date": date_time,
        "X-Amz-Security-Token": _credential(credentials, "AWS_SESSION_TOKEN", optional=True),
        "X-Amz-Target": f"{prefix}{operation}",
    }
    headers = {name: value for name, value in headers.items() if value}
    names = ";".join(name.lower() for name in headers)

    lines = "".join(f"{name.lower()}:{value}\n" for name, value in headers.items())
    canonical_request = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"

    scope = (date_time[:8], region, service, "aws4_request")
    signature = _signature(canonical_request, date_time, scope, secret_key)

    headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={access_key}/{'/'.join(scope)}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return headers


def presigned_url(
    service: str,
    region: str,
    host: str,
    query: Mapping[str, str],
    valid_for_s: int,
    credentials: Mapping[str, str],
    at: float,
) -> str:
    """A POST of nothing to the root of `host`, signed in its query, without its scheme.

    Source: AWS IAM User Guide, "Create a signed AWS API request", with the signature in the query.
    """
    access_key = _credential(credentials, "AWS_ACCESS_KEY_ID")
    secret_key = _credential(credentials, "AWS_SECRET_ACCESS_KEY")
    token = _credential(credentials, "AWS_SESSION_TOKEN", optional=True)
    date_time = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    scope = (date_time[:8], region, service, "aws4_request")
    asked = {
        **query,
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{access_key}/{'/'.join(scope)}",
        "X-Amz-Date": date_time,
        "X-Amz-Expires": str(valid_for_s),
        "X-Amz-SignedHeaders": "host",
        **({"X-Amz-Security-Token": token} if token else {}),
    }
    told = [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in asked.items()]
    empty = hashlib.sha256(b"").hexdigest()
    canonical_request = f"POST\n/\n{'&'.join(sorted(told))}\nhost:{host}\n\nhost\n{empty}"
    signature = _signature(canonical_request, date_time, scope, secret_key)
    return f"{host}/?{'&'.join(told)}&X-Amz-Signature={signature}"


def _signature(
    canonical_request: str, date_time: str, scope: tuple[str, ...], secret_key: str
) -> str:
    hashed_request = hashlib.sha256(canonical_request.encode()).hexdigest()
    string_to_sign = f"AWS4-HMAC-SHA256\n{date_time}\n{'/'.join(scope)}\n{hashed_request}"
    key = f"AWS4{secret_key}".encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, string_to_sign.encode(), "sha256").hex()


def _is_of_a_dead_peer(error: Exception) -> bool:
    """Return whether a connection broke because its peer had gone while it was idle. One that does
    not acknowledge is told from one that is slow by the system's error.
    """
    if isinstance(error, TimeoutError):
        return error.errno == errno.ETIMEDOUT
    return isinstance(error, ConnectionError | http.client.BadStatusLine | ssl.SSLEOFError)


def _credential(credentials: Mapping[str, str], name: str, *, optional: bool = False) -> str:
    value = credentials.get(name, "")
    # A stray line end would make http.client fail with an error that shows the header's value.
    if not (value or optional) or not (value.isascii() and value.isprintable()):
        raise AwsError(f"{name} is missing or unusable")
    return value


def _json_object(raw: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(raw)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None
