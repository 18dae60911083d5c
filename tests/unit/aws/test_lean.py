"""DynamoDB without botocore: signed as botocore signs, over real sockets that fail in every way."""

import contextlib
import datetime
import ipaddress
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.unit.connections.deaf import make_deaf
from weir.aws import contention, lean
from weir.aws.lean import Api, AwsError, signed_headers
from weir.connections import trust

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "IQoJb3JpZ2luX2VjEXAMPLE//token==",
}
WITHOUT_TOKEN = {name: value for name, value in SECRETS.items() if "TOKEN" not in name}
GET = {"TableName": "t", "Key": {"pk": {"S": "ORIGINS"}, "sk": {"S": "ORIGINS"}}}
CORAL = "com.amazonaws.dynamodb.v20120810#"


# ---------------------------------------------------------------- signatures


@pytest.mark.parametrize("credentials", [SECRETS, WITHOUT_TOKEN], ids=["token", "no token"])
@pytest.mark.parametrize(
    ("operation", "payload"),
    [
        ("GetItem", GET),
        ("PutItem", {"TableName": "t", "Item": {"pk": {"S": "https://bücher.example/日本 🙂"}}}),
        ("UpdateItem", {"TableName": "t", "UpdateExpression": "SET a = :a\n  ,\tb = :b"}),
        ("ListTables", {}),
    ],
)
@pytest.mark.parametrize(
    "endpoint",
    [
        "https://dynamodb.eu-central-1.amazonaws.com",
        "http://127.0.0.1:8000",
        "http://[::1]:8000",
    ],
)
def test_signature_is_botocores(
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    payload: dict[str, Any],
    credentials: dict[str, str],
    endpoint: str,
) -> None:
    at = 1_800_000_000
    moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: moment)
    body = json.dumps(payload, ensure_ascii=False).encode()  # the signature is one over any bytes
    host = endpoint.split("//")[1]

    ours = signed_headers("dynamodb", operation, body, host, "eu-central-1", credentials, at)

    theirs = AWSRequest(
        method="POST",
        url=endpoint + "/",
        data=body,
        headers={name: ours[name] for name in ("Content-Type", "X-Amz-Target")},
    )
    known = Credentials(
        credentials["AWS_ACCESS_KEY_ID"],
        credentials["AWS_SECRET_ACCESS_KEY"],
        credentials.get("AWS_SESSION_TOKEN"),
    )
    botocore.auth.SigV4Auth(known, "dynamodb", "eu-central-1").add_auth(theirs)
    assert ours == {**dict(theirs.headers.items()), "Host": host}


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_missing_credential_is_named(name: str) -> None:
    lacking = {key: value for key, value in SECRETS.items() if key != name}
    with pytest.raises(AwsError, match=name):
        Api("dynamodb", "us-east-1", "http://127.0.0.1:1", lacking).call("GetItem", GET)


@pytest.mark.parametrize("name", list(SECRETS))
@pytest.mark.parametrize("ending", ["\n", "\r\nX-Smuggled: 1", "\u2019"])
def test_credential_that_cannot_stand_in_a_header_is_named_and_not_shown(
    name: str, ending: str
) -> None:
    broken = {**SECRETS, name: SECRETS[name] + ending}
    with pytest.raises(AwsError, match=name) as caught:
        Api("dynamodb", "us-east-1", "http://127.0.0.1:1", broken).call("GetItem", GET)
    assert_tells_no_secret(caught.value)


# ---------------------------------------------------------------- where it calls


@pytest.mark.parametrize(
    ("env", "host"),
    [
        ({"AWS_REGION": "eu-west-1"}, "dynamodb.eu-west-1.amazonaws.com"),
        ({"AWS_REGION": "cn-north-1"}, "dynamodb.cn-north-1.amazonaws.com.cn"),
        ({"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://all:1"}, "all:1"),
        ({"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://all:1/"}, "all:1"),
        ({"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": ""}, "dynamodb.eu-west-1.amazonaws.com"),
        (
            {
                "AWS_REGION": "eu-west-1",
                "AWS_ENDPOINT_URL": "http://all:1",
                "AWS_ENDPOINT_URL_DYNAMODB": "http://one:2",
            },
            "one:2",
        ),
    ],
)
def test_endpoint_is_the_one_an_sdk_would_take(env: dict[str, str], host: str) -> None:
    assert Api.from_env("dynamodb", env)._host == host


@pytest.mark.parametrize(
    "endpoint", ["localhost:8000", "http://host/path", "ftp://host", "http://", ""]
)
def test_endpoint_that_would_be_misread_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        Api("dynamodb", "us-east-1", endpoint, SECRETS)


# ---------------------------------------------------------------- over HTTP


class Table(ThreadingHTTPServer):
    """Answers each request with the next of `answers`; the last one serves for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, bytes]] = [(200, b'{"Item": {"pk": {"S": "ORIGINS"}}}')]
        self.hangs_up = False  # says keep-alive, but closes after each answer
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.peers: set[int] = set()
        self.hung_up = threading.Semaphore(0)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.hung_up.release()


class Handler(BaseHTTPRequestHandler):
    server: Table
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append(({k.lower(): v for k, v in self.headers.items()}, body))
        self.server.peers.add(self.client_address[1])
        answers = self.server.answers
        status, answer = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.close_connection = self.server.hangs_up

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def table() -> Iterator[Table]:
    with Table() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def connect() -> Iterator[Callable[..., Api]]:
    made: list[Api] = []

    def client(port: int, scheme: str = "http", dial_s: float = 5, read_s: float = 5) -> Api:
        made.append(
            Api(
                "dynamodb",
                "us-east-1",
                f"{scheme}://127.0.0.1:{port}",
                SECRETS,
                connect_timeout_s=dial_s,
                read_timeout_s=read_s,
            )
        )
        return made[-1]

    yield client
    for each in made:
        each.close()


Connect = Callable[..., Api]


def assert_tells_no_secret(error: BaseException | None) -> None:
    """Neither the error nor what a traceback shows as its cause."""
    while error is not None:
        for secret in SECRETS.values():
            assert secret not in f"{error!s} {error!r} {vars(error)}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_item_is_read(table: Table, connect: Connect) -> None:
    client = connect(table.server_port)
    assert client.call("GetItem", GET) == {"Item": {"pk": {"S": "ORIGINS"}}}

    headers, body = table.seen[0]
    assert json.loads(body) == GET
    assert headers["x-amz-target"] == "DynamoDB_20120810.GetItem"
    assert headers["content-type"] == "application/x-amz-json-1.0"
    assert headers["host"] == f"127.0.0.1:{table.server_port}"
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")


def test_clock_and_credentials_are_read_at_each_call(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{table.server_port}"}
    env.update(WITHOUT_TOKEN)
    client = Api.from_env("dynamodb", env)
    for key, at in (("AKIDFIRST", 0), ("AKIDSECOND", 86_400)):
        env["AWS_ACCESS_KEY_ID"] = key
        monkeypatch.setattr(time, "time", lambda at=at: float(at))
        client.call("GetItem", GET)
    client.close()
    signed = [headers["authorization"].split(",")[0] for headers, _ in table.seen]
    assert [line.split("=")[1].split("/")[:2] for line in signed] == [
        ["AKIDFIRST", "19700101"],
        ["AKIDSECOND", "19700102"],
    ]


def test_calls_share_a_connection_even_after_a_refusal(table: Table, connect: Connect) -> None:
    refused = json.dumps({"__type": CORAL + "ConditionalCheckFailedException"}).encode()
    table.answers = [(200, b"{}"), (400, refused), (200, b"{}")]
    client = connect(table.server_port)
    client.call("GetItem", GET)
    with pytest.raises(AwsError):
        client.call("PutItem", {})
    client.call("GetItem", GET)
    assert len(table.peers) == 1


@pytest.mark.parametrize(
    ("status", "answer", "code"),
    [
        (400, {"__type": CORAL + "ConditionalCheckFailedException"}, "Conditional"),
        (400, {"__type": "com.amazon.coral.service#InvalidSignatureException"}, "InvalidSignature"),
        (400, {"__type": "ThrottlingException"}, "Throttling"),
        (500, {"__type": CORAL + "InternalServerError"}, "InternalServerError"),
        (400, {"__type": None}, None),
        (400, {}, None),
        (503, "busy", None),
        (302, {}, None),
        (200, ["not", "an", "object"], None),
    ],
)
def test_refusal_has_its_status_and_aws_code(
    table: Table, connect: Connect, status: int, answer: object, code: str | None
) -> None:
    table.answers = [(status, json.dumps(answer).encode())]
    with pytest.raises(AwsError) as caught:
        connect(table.server_port).call("GetItem", GET)
    assert caught.value.status == status
    assert (caught.value.code or "").startswith(code or "")
    assert (caught.value.code is None) == (code is None)
    assert "#" not in str(caught.value)
    passing = status >= 500 or code == "Throttling"
    assert len(table.seen) == (lean.TRIES if passing else 1)


@pytest.mark.parametrize("status", [500, 503])
def test_what_passes_is_tried_again(table: Table, connect: Connect, status: int) -> None:
    throttled = json.dumps({"__type": "x#ProvisionedThroughputExceededException"}).encode()
    table.answers = [(status, b"busy"), (400, throttled), (200, b'{"Items": []}')]
    assert connect(table.server_port).call("Query", {}) == {"Items": []}
    assert len(table.seen) == 3


def test_secret_is_read_in_its_services_own_dialect(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = f"http://127.0.0.1:{table.server_port}"
    env = {**SECRETS, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL_SECRETS_MANAGER": here}
    table.answers = [
        (200, b'{"SecretString": "s"}'),
        (400, b'{"__type":"ResourceNotFoundException"}'),
    ]
    api = Api.from_env("secretsmanager", env)
    client = lean.Client(api)
    assert client.get_secret_value(SecretId="x") == {"SecretString": "s"}
    headers, body = table.seen[0]
    assert headers["x-amz-target"] == "secretsmanager.GetSecretValue"
    assert headers["content-type"] == "application/x-amz-json-1.1"
    assert "/us-east-1/secretsmanager/aws4_request" in headers["authorization"]
    assert json.loads(body) == {"SecretId": "x"}
    with pytest.raises(AwsError) as caught:
        client.get_secret_value(SecretId="y")
    assert contention.code_of(caught.value) == "ResourceNotFoundException"
    api.close()


@pytest.mark.parametrize("answer", [b"", b"{", b"<html>", b"\xff\xfe"])
@pytest.mark.parametrize("status", [200, 400, 500])
def test_garbage_is_an_error(table: Table, connect: Connect, status: int, answer: bytes) -> None:
    table.answers = [(status, answer)] * (lean.TRIES if status == 500 else 1) + [(200, b"{}")]
    client = connect(table.server_port)
    with pytest.raises(AwsError) as caught:
        client.call("GetItem", GET)
    assert (caught.value.status, caught.value.code) == (status, None)
    assert client.call("GetItem", GET) == {}


def test_error_does_not_repeat_what_aws_says_of_a_wrong_signature(
    table: Table, connect: Connect
) -> None:
    told = "The Canonical String should have been x-amz-security-token:" + ", ".join(
        SECRETS.values()
    )
    table.answers = [(400, json.dumps({"__type": "x#InvalidSignature", "message": told}).encode())]
    with pytest.raises(AwsError) as caught:
        connect(table.server_port).call("GetItem", GET)
    assert_tells_no_secret(caught.value)


def test_kept_connection_that_was_closed_is_dialled_anew(table: Table, connect: Connect) -> None:
    table.hangs_up = True
    client = connect(table.server_port)
    for turn in range(3):
        client.call("GetItem", GET)
        assert table.hung_up.acquire(timeout=2)
        assert len(table.peers) == turn + 1
    assert len(table.seen) == 3, "no request came twice"


# ---------------------------------------------------------------- over sockets, broken

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Script = Callable[[socket.socket], None]


def request_and(answer: bytes) -> Script:
    def script(peer: socket.socket) -> None:
        read_request(peer)
        peer.sendall(answer)

    return script


def read_request(peer: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data or not data.endswith(b"}"):
        more = peer.recv(65536)
        if not more:
            raise ConnectionError
        data += more


def wait_for_end(peer: socket.socket) -> None:
    peer.settimeout(2)
    with contextlib.suppress(OSError):
        while peer.recv(65536):
            pass


class Broken:
    """Serves each connection with the next scripts, then closes it."""

    def __init__(self, *connections: list[Script], tls: ssl.SSLContext | None = None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.dialled = 0
        self.closed = threading.Semaphore(0)
        self._connections = connections
        self._tls = tls
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        for scripts in self._connections:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            self.dialled += 1
            with contextlib.suppress(OSError), plain:
                peer = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
                with peer:
                    for script in scripts:
                        script(peer)
            self.closed.release()

    def __enter__(self) -> "Broken":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # wakes accept(), which close() alone would not
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(3)
        assert not self._thread.is_alive()


def reset(peer: socket.socket) -> None:
    """Makes the close that follows a TCP reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


@pytest.mark.parametrize("ending", [[], [reset]], ids=["closed", "reset"])
def test_kept_connection_that_died_idle_is_dialled_anew(
    connect: Connect, ending: list[Script]
) -> None:
    with Broken([request_and(OK), *ending], [request_and(OK)]) as server:
        client = connect(server.port)
        client.call("GetItem", GET)
        assert server.closed.acquire(timeout=2)
        assert client.call("GetItem", GET) == {}
        assert server.dialled == 2


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n"], ids=["nothing", "no status line"])
def test_kept_connection_that_breaks_on_the_request_is_dialled_anew_once(
    connect: Connect, answer: bytes
) -> None:
    breaks = request_and(answer)
    with Broken([request_and(OK), breaks], [breaks], [request_and(OK)]) as server:
        client = connect(server.port)
        client.call("GetItem", GET)
        with pytest.raises(AwsError):
            client.call("GetItem", GET)
        assert server.dialled == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["nothing", "no status line", "half a body", "no chunk"],
)
def test_new_connection_that_breaks_is_an_error_and_is_let_go(
    connect: Connect, answer: bytes
) -> None:
    with Broken([request_and(answer)], [request_and(OK)]) as server:
        client = connect(server.port)
        with pytest.raises(AwsError) as caught:
            client.call("GetItem", GET)
        assert server.dialled == 1
        assert caught.value.status is None
        assert_tells_no_secret(caught.value)
        assert client.call("GetItem", GET) == {}


@pytest.mark.parametrize(
    "start",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"],
    ids=["silent", "silent in the head", "silent in the body"],
)
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "new"])
def test_silence_is_an_error_in_time_and_not_repeated(
    connect: Connect, start: bytes, kept: bool
) -> None:
    scripts = [request_and(OK)] * kept + [request_and(start), wait_for_end]
    with Broken(scripts, [request_and(OK)]) as server:
        client = connect(server.port, read_s=0.1)
        for _ in range(kept):
            client.call("GetItem", GET)
        began = time.monotonic()
        with pytest.raises(AwsError, match="TimeoutError"):
            client.call("GetItem", GET)
        assert 0.09 < time.monotonic() - began < 1
        assert server.dialled == 1
        assert server.closed.acquire(timeout=1), "the connection was let go"


def test_nobody_listening_is_an_error(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(AwsError, match="ConnectionRefusedError"):
        connect(port).call("GetItem", GET)


# ---------------------------------------------------------------- over TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dynamodb")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "dynamodb.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def say_goodbye(peer: socket.socket) -> None:
    assert isinstance(peer, ssl.SSLSocket)
    peer.settimeout(0.05)
    with contextlib.suppress(OSError):
        peer.unwrap()  # sends close_notify; nobody answers it


@pytest.mark.parametrize(
    "ending", [[], [say_goodbye], [reset]], ids=["closed", "closed in order", "reset"]
)
def test_kept_tls_connection_that_died_idle_is_dialled_anew(
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    certificate: Path,
    tls: ssl.SSLContext,
    ending: list[Script],
) -> None:
    trusting = ssl.create_default_context(cafile=certificate)
    monkeypatch.setattr(trust, "context", lambda: trusting)
    once = request_and(OK)
    with Broken([once, once, *ending], [once], tls=tls) as server:
        client = connect(server.port, "https")
        client.call("GetItem", GET)
        client.call("GetItem", GET)
        assert server.dialled == 1
        assert server.closed.acquire(timeout=2)
        assert client.call("GetItem", GET) == {}
        assert server.dialled == 2


def pause(monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time() + 60
    monkeypatch.setattr("time.time", lambda: later)


def test_kept_connection_whose_peer_acknowledges_nothing_is_dialled_anew(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_open: list[socket.socket] = []

    def go(peer: socket.socket) -> None:
        make_deaf(peer)
        kept_open.append(peer.dup())

    with Broken([request_and(OK), go], [request_and(OK)]) as server:
        client = connect(server.port)
        client.call("GetItem", GET)
        assert server.closed.acquire(timeout=2)
        pause(monkeypatch)
        assert client.call("GetItem", GET) == {}
        assert server.dialled == 2
    kept_open[0].close()


def test_peer_that_is_slow_is_not_gone(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(peer: socket.socket) -> None:
        read_request(peer)
        time.sleep(3 * lean.UNACKNOWLEDGED_S)
        peer.sendall(OK)

    with Broken([request_and(OK), slowly]) as server:
        client = connect(server.port)
        client.call("GetItem", GET)
        pause(monkeypatch)
        assert client.call("GetItem", GET) == {}
        assert server.dialled == 1


def test_certificate_that_nobody_vouches_for_is_refused(
    connect: Connect, tls: ssl.SSLContext
) -> None:
    failure = pytest.raises(AwsError, match="SSLCertVerificationError")
    with Broken([request_and(OK)], tls=tls) as server, failure:
        connect(server.port, "https").call("GetItem", GET)


def test_tls_that_never_begins_is_an_error_in_time(connect: Connect) -> None:
    with Broken([wait_for_end]) as server:
        began = time.monotonic()
        with pytest.raises(AwsError, match="TimeoutError"):
            connect(server.port, "https", dial_s=0.1).call("GetItem", GET)
        assert time.monotonic() - began < 1


# ---------------------------------------------------------------- what it costs


def test_import_brings_the_standard_library_only() -> None:
    program = """
import sys
before = set(sys.modules)
import weir.aws.lean
brought = {name.split(".")[0] for name in set(sys.modules) - before}
print(*sorted(brought - sys.stdlib_module_names))
print(*sorted(brought & {"asyncio", "dataclasses", "inspect", "logging"}))
"""
    core = Path(__file__).parents[3] / "layers/core"
    output = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(core)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert output.splitlines() == ["weir", ""]
