"""A Lambda runtime client that streams: what a handler yields leaves at once, as one HTTP chunk.

The managed Python runtime sends a response in one piece. This module replaces it on the functions
whose environment names `start-stream-runtime` as AWS_LAMBDA_EXEC_WRAPPER. A handler is

    handler(event: dict, context) -> (
        status: int, headers: dict[str, str | list[str]], first: bytes, rest: Iterator[bytes]
    )

Rules of this file:

* `rest` is closed once, whatever happens: it ended, it raised, nobody reads any more, it was never
  begun.
* A reader that does not read holds a send up until the response's deadline and no longer. Then the
  response is abandoned. The deadline is the invocation's, or an earlier one that the handler sets
  with `context.end_response_within(milliseconds)`.
* A failure before the response began is POSTed to /error. After that the status has left: a failure
  goes into the trailers, and telling the reader in-band is the handler's part.
* Nothing but the standard library, and only what is cheap to import: every cold start waits for it.
* One connection per call. The process may be frozen or snapshotted between two invocations; no
  socket has to survive that but the one that waits for the next event.
* It knows the Runtime API and the HTTP integration format, and nothing of the function it serves.

Sources: AWS "Using the Lambda runtime API", "Building a custom runtime", "Configuring response
streaming", API Gateway "Lambda proxy integration for response streaming"; awslambdaric 4.2.2
(called RIC here) for what no page says.
"""

from __future__ import annotations

import binascii
import importlib
import json
import logging
import os
import select
import socket
import sys
import time
import traceback
from types import SimpleNamespace

TYPE_CHECKING = False  # typing itself costs milliseconds and is needed by type checkers only
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn

    Handler = Callable[
        [Any, "Context"], tuple[int, dict[str, str | list[str]], bytes, Iterator[bytes]]
    ]

API = "/2018-06-01/runtime"
DELIMITER = b"\0" * 8
#: API Gateway looks for the prelude and its delimiter in this many bytes and gives up beyond them.
MAX_PRELUDE = 16 * 1024
#: AWS: the X-Ray cause must be smaller than 1 MiB; all headers share Go's limit of 1 MiB.
MAX_XRAY_CAUSE = 900_000
#: The Runtime API is a Go server, and Go refuses trailers that do not fit its 4 KB read buffer
#: ("suspiciously long trailer"), upon which the Runtime API ends the whole sandbox: seen with the
#: Runtime Interface Emulator. 2,600 bytes of JSON are 3,468 in base64.
MAX_TRAILER_ERROR = 2600
#: Left of an invocation when an unread response is abandoned: `rest` is closed in it.
CLOSING_MS = 2000

log = logging.getLogger("stream_runtime")


class RuntimeApiError(Exception):
    """The Runtime API is gone, or answered what it must not: there is nothing to go on with."""


class Abandoned(Exception):
    """Nobody takes this response any more: the connection broke, or it was answered early."""


class NotRead(Abandoned):
    """The reader did not read until the response's deadline. A part of a chunk may have left."""


class Fault(Exception):
    """A failure that has a type of Amazon's own, `Runtime.…`."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


# --- HTTP -----------------------------------------------------------------------------------------


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


class RuntimeApi:
    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.address, self._peer = address, (host.strip("[]"), int(port))

    def connect(self) -> socket.socket:
        sock = socket.create_connection(self._peer)
        # Nagle plus delayed ACK holds a small chunk back for some 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def head(self, method: str, path: str, headers: dict[str, str]) -> bytes:
        # AWS asks for "Connection: close" on the streaming POST; with one connection a call it
        # suits them all.
        lines = [f"{method} {API}{path} HTTP/1.1", f"Host: {self.address}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")

    def get(self, path: str) -> Answer:
        """Waits as long as it takes: a timeout would fire whenever the process had been frozen."""
        try:
            with self.connect() as sock:
                sock.sendall(self.head("GET", path, {}))
                answer = read_answer(sock)
        except OSError as error:
            raise RuntimeApiError(f"GET {path} at {self.address}: {error}") from error
        if answer.status != 200:
            raise RuntimeApiError(f"GET {path} at {self.address}: status {answer.status}")
        return answer

    def post_error(self, path: str, error: dict[str, Any], headers: dict[str, str]) -> None:
        body = json.dumps(error).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        try:
            with self.connect() as sock:
                sock.sendall(self.head("POST", path, headers) + body)
                acknowledge(read_answer(sock))
        except OSError as failure:
            log.error("POST %s at %s: %s", path, self.address, failure)


def read_answer(sock: socket.socket) -> Answer:
    """One whole answer. One that is cut short raises ConnectionError: half an event is no event."""
    with sock.makefile("rb") as stream:
        try:
            status = int(stream.readline().split(b" ", 2)[1])
            headers = {}
            while (line := stream.readline()) != b"\r\n":
                if not line:
                    raise ValueError("no end of the headers")
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            if "chunked" not in headers.get("transfer-encoding", "").lower():
                size = int(headers.get("content-length", "0"))
                return Answer(status, headers, read_exactly(stream, size))
            # Go's server chooses chunks by itself for a body of unknown length above 2 KB.
            pieces = []
            while size := int(stream.readline().partition(b";")[0], 16):
                pieces.append(read_exactly(stream, size))
                stream.readline()
            return Answer(status, headers, b"".join(pieces))
        except (ValueError, IndexError) as error:
            raise ConnectionError(
                "the connection was closed before the answer was whole"
            ) from error


def read_exactly(stream: Any, size: int) -> bytes:
    body: bytes = stream.read(size)
    if len(body) != size:
        raise ConnectionError(f"the answer broke off after {len(body)} of {size} bytes")
    return body


def acknowledge(answer: Answer) -> None:
    if answer.status == 410:
        # Runtime.InvokeTimeout: the invocation is over, this process is not (RIC >= 4.0.2).
        log.warning("the Runtime API had given this invocation up (410)")
    elif answer.status >= 500:
        # "Non-recoverable state. Runtime should exit promptly." (AWS: Lambda runtime API)
        raise RuntimeApiError(f"status {answer.status}: {answer.body[:200]!r}")
    elif answer.status != 202:
        log.error("the Runtime API refused it: %s %r", answer.status, answer.body[:200])


# --- Errors, as Lambda wants them told ------------------------------------------------------------


def frames_of(error: BaseException) -> traceback.StackSummary:
    """The trace without the frames of this file and of importlib, the same in every trace."""
    ours = (
        __file__,
        importlib.__file__,
        "<frozen importlib._bootstrap>",
        "<frozen importlib._bootstrap_external>",
    )
    frames = traceback.extract_tb(error.__traceback__)
    return traceback.StackSummary.from_list(
        [frame for frame in frames if frame.filename not in ours]
    )


def describe(error: BaseException, request_id: str = "") -> dict[str, Any]:
    error_type = error.error_type if isinstance(error, Fault) else type(error).__name__
    trace = traceback.format_list(frames_of(error))
    return {
        "errorMessage": str(error),
        "errorType": error_type,
        "requestId": request_id,
        "stackTrace": trace,
    }


def header_type(error: BaseException) -> str:
    """The error type in the one form the Runtime API keeps, `(Runtime|Function).[A-Z][a-zA-Z]+`."""
    if isinstance(error, Fault):
        return error.error_type
    letters = "".join(c for c in type(error).__name__ if c.isascii() and c.isalpha())
    return "Function." + (letters[:1].upper() + letters[1:] if len(letters) > 1 else "Unknown")


def xray_cause(error: BaseException) -> dict[str, str]:
    frames = frames_of(error)
    stack = [
        {"label": frame.name, "path": frame.filename, "line": frame.lineno} for frame in frames
    ]
    what = {"message": str(error), "type": type(error).__name__, "stack": stack}
    paths = sorted({frame.filename for frame in frames})
    cause = json.dumps({"working_directory": os.getcwd(), "exceptions": [what], "paths": paths})
    return (
        {"Lambda-Runtime-Function-XRay-Error-Cause": cause} if len(cause) < MAX_XRAY_CAUSE else {}
    )


def error_trailers(error: BaseException) -> bytes:
    told = describe(error)
    del told["requestId"]
    told["errorType"] = told["errorType"][:100]
    told["errorMessage"] = told["errorMessage"][:200]  # at most six bytes a character in JSON
    while len(body := json.dumps(told).encode()) > MAX_TRAILER_ERROR and told["stackTrace"]:
        del told["stackTrace"][0]  # the innermost frames say most; the log has all of them
    name = type(error).__name__[:100].encode("ascii", "replace")
    encoded = binascii.b2a_base64(body, newline=False)
    return (
        b"Lambda-Runtime-Function-Error-Type: %b\r\nLambda-Runtime-Function-Error-Body: %b\r\n"
        % (name, encoded)
    )


# --- One invocation -------------------------------------------------------------------------------


class Context:
    """What AWS "Lambda context object in Python" lists."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.aws_request_id = headers["lambda-runtime-aws-request-id"]
        self.invoked_function_arn = headers.get("lambda-runtime-invoked-function-arn")
        self.tenant_id = headers.get("lambda-runtime-aws-tenant-id")
        self.function_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
        self.function_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION")
        self.memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.log_group_name = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream_name = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME")
        identity = self._json(headers, "lambda-runtime-cognito-identity") or {}
        self.identity = SimpleNamespace(
            cognito_identity_id=identity.get("cognitoIdentityId"),
            cognito_identity_pool_id=identity.get("cognitoIdentityPoolId"),
        )
        client = self._json(headers, "lambda-runtime-client-context")
        self.client_context = client and SimpleNamespace(
            client=SimpleNamespace(**(client.get("client") or {})),
            custom=client.get("custom"),
            env=client.get("env"),
        )
        self._deadline_ms = int(headers.get("lambda-runtime-deadline-ms", "0"))
        self._response_deadline_ms = self._deadline_ms - CLOSING_MS

    def get_remaining_time_in_millis(self) -> int:
        return max(0, self._deadline_ms - int(time.time() * 1000))

    def end_response_within(self, milliseconds: int) -> None:
        """Set the moment at which a response that is not read is abandoned; not part of AWS's
        context. Without it, that is shortly before the invocation's own deadline.
        """
        wanted = int(time.time() * 1000) + milliseconds
        self._response_deadline_ms = min(self._response_deadline_ms, wanted)

    def seconds_to_send(self) -> float:
        return max(0.0, self._response_deadline_ms / 1000 - time.time())

    @staticmethod
    def _json(headers: dict[str, str], name: str) -> Any:
        try:
            return json.loads(headers[name].encode("latin-1")) if headers.get(name) else None
        except ValueError as error:
            raise Fault("Runtime.LambdaContextUnmarshalError", f"{name}: {error}") from error


def prelude(status: Any, headers: Any) -> bytes:
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599:
        raise TypeError(f"the status must be an HTTP status as an int, not {status!r}")
    single: dict[str, str] = {}
    several: dict[str, list[str]] = {}
    for name, value in headers.items():
        if isinstance(name, str) and isinstance(value, str):
            single[name] = value
        elif (
            isinstance(name, str)
            and isinstance(value, list)
            and all(isinstance(one, str) for one in value)
        ):
            several[name] = value
        else:
            raise TypeError(
                f"header {name!r} must be a str or a list of str, not {type(value).__name__}"
            )
    told = {
        "statusCode": status,
        "headers": single,
        **({"multiValueHeaders": several} if several else {}),
    }
    # ASCII JSON escapes every NUL, so the delimiter cannot occur early.
    opening = json.dumps(told, separators=(",", ":")).encode() + DELIMITER
    if len(opening) > MAX_PRELUDE:
        raise ValueError(
            f"status and headers take {len(opening)} bytes, API Gateway reads at most {MAX_PRELUDE}"
        )
    return opening


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def answers_of(sock: socket.socket) -> select.poll:
    """What tells whether there is anything to read: an answer, or the end of the connection. It
    costs a fifth of a look into the socket, and is asked before every write.
    """
    answers = select.poll()
    answers.register(sock, select.POLLIN)
    return answers


def send(sock: socket.socket, answers: select.poll, data: bytes, context: Context) -> None:
    """Send all of it, unless the Runtime API has answered or left already.

    Raises Abandoned, and NotRead if it does not fit into the socket before the deadline.
    """
    if answers.poll(0):
        raise Abandoned("answered or closed before the body's end")
    try:
        try:
            sent = sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            send_slowly(sock, data[sent:], context)
    except OSError as error:
        raise Abandoned(str(error)) from error


def send_slowly(sock: socket.socket, data: bytes, context: Context) -> None:
    """Wait for the reader, until the response's deadline."""
    try:
        sock.settimeout(context.seconds_to_send())
        sock.sendall(data)
    except (TimeoutError, BlockingIOError):  # the latter if no time is left at all
        raise NotRead("its reader has not read it by its deadline") from None
    finally:
        sock.settimeout(None)


def stream(
    api: RuntimeApi,
    path: str,
    nonce: dict[str, str],
    opening: bytes,
    rest: Iterator[bytes],
    context: Context,
) -> None:
    headers = {
        "Lambda-Runtime-Function-Response-Mode": "streaming",
        "Content-Type": "application/vnd.awslambda.http-integration-response",
        "Transfer-Encoding": "chunked",
        "Trailer": "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body",
        **nonce,
    }
    trailers = b""
    with api.connect() as sock:
        answers = answers_of(sock)
        try:
            # One send: API Gateway begins its answer when it has the whole prelude.
            send(sock, answers, api.head("POST", path, headers) + chunk(opening), context)
            for piece in rest:
                if not isinstance(piece, bytes):
                    raise TypeError(f"the handler yielded {type(piece).__name__}, not bytes")
                # A chunk of no bytes would end the body.
                send(sock, answers, chunk(piece) if piece else b"", context)
        except NotRead as unread:
            # The body is cut inside a chunk, and nobody would read its end: the connection is
            # closed on it, which says that the response is not whole.
            log.warning("the response was abandoned: %s", unread)
            return
        except Abandoned as left:
            log.warning("the response was abandoned: %s", left)
        except Exception as error:
            log.exception("the handler failed after its response had begun")
            trailers = error_trailers(error)
        try:
            send(sock, answers, b"0\r\n" + trailers + b"\r\n", context)
        except NotRead as unread:
            log.warning("the end of the response was abandoned: %s", unread)
            return
        except Abandoned:
            log.debug("an answer was there before the end of the body was sent")
        sock.settimeout(max(1.0, context.seconds_to_send()))
        acknowledge(read_answer(sock))


def serve(api: RuntimeApi, handler: Handler, invocation: Answer) -> None:
    """One invocation from event to answer. Returns also when it failed: the next one waits."""
    request_id = invocation.headers["lambda-runtime-aws-request-id"]
    path = f"/invocation/{request_id}"
    nonce = invocation.headers.get(
        "lambda-runtime-invocation-id"
    )  # newer than the API's pages; RIC >= 4.0.2 echoes it
    echo = {} if nonce is None else {"Lambda-Runtime-Invocation-Id": nonce}
    rest: Any = None
    try:
        try:
            context = Context(invocation.headers)
            try:
                event = json.loads(invocation.body)
            except ValueError as error:
                raise Fault("Runtime.UnmarshalError", f"the event is not JSON: {error}") from error
            answer = handler(event, context)
            if not isinstance(answer, tuple) or len(answer) != 4:
                raise TypeError("the handler must return (status, headers, first, rest)")
            status, headers, first, rest = answer
            if not isinstance(first, bytes) or not hasattr(rest, "__next__"):
                raise TypeError(
                    "the handler must return bytes as `first` and an iterator of bytes as `rest`"
                )
            opening = prelude(status, headers) + first
        except Exception as error:
            log.exception("the handler failed before its response began")
            kind = {"Lambda-Runtime-Function-Error-Type": header_type(error)}
            told = describe(error, request_id)
            api.post_error(f"{path}/error", told, {**kind, **xray_cause(error), **echo})
            return
        try:
            stream(api, f"{path}/response", echo, opening, rest, context)
        except OSError as error:
            log.warning("POST %s/response at %s: %s", path, api.address, error)
    finally:
        try:
            if hasattr(rest, "close"):
                rest.close()
        except Exception:
            log.exception("closing what the handler returned failed")


# --- Logs -----------------------------------------------------------------------------------------


class OneLine(logging.Formatter):
    """One record, one line on stdout: CloudWatch makes one event of it."""

    known = frozenset([*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"])

    def __init__(self, as_text: bool) -> None:
        super().__init__()
        self.as_text, self.request_id = as_text, ""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        timestamp = f"{seconds}.{int(record.msecs):03d}Z"
        error = record.exc_info[1] if record.exc_info else None
        if self.as_text:
            trace = "\n" + "".join(traceback.format_exception(error)).rstrip() if error else ""
            head = f"[{record.levelname}]\t{timestamp}\t{self.request_id}\t"
            # As RIC does: CloudWatch shows a carriage return as a line and keeps it one event.
            return f"{head}{visible(record.getMessage() + trace)}".replace("\n", "\r")
        line: dict[str, Any] = {"timestamp": timestamp, "level": record.levelname}
        line |= {
            "message": record.getMessage(),
            "logger": record.name,
            "requestId": self.request_id,
        }
        if error:
            told = describe(error)
            line |= {key: told[key] for key in ("errorType", "errorMessage", "stackTrace")}
        extra = {key: value for key, value in record.__dict__.items() if key not in self.known}
        # ASCII but for DEL, so that no reader obeys a character of what was logged.
        return json.dumps({**extra, **line}, default=str).replace("\x7f", "\\u007f")


def visible(text: str) -> str:
    """A text with escapes for controls and formats, but for line ends and tabs."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def configure_logging() -> OneLine:
    # Lambda's level names are TRACE to FATAL; the stdlib lacks the first and aliases the last.
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "INFO").upper().replace("TRACE", "DEBUG")
    formatter = OneLine(as_text=os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "TEXT")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level if level in logging.getLevelNamesMapping() else "INFO")
    return formatter


# --- The process ----------------------------------------------------------------------------------


def arrange_path() -> None:
    """The function's own code first, then the layers: the managed runtime's order."""
    here = os.path.dirname(os.path.abspath(__file__))  # /opt/python
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    first = [
        os.environ.get("LAMBDA_TASK_ROOT") or os.getcwd(),
        f"{here}/lib/{version}/site-packages",
        here,
    ]
    sys.path[:] = first + [path for path in sys.path if path not in first]


def load_handler(name: str) -> Handler:
    module_name, _, function_name = name.rpartition(".")
    module_name = module_name.replace("/", ".")
    if not module_name or not function_name:
        raise Fault(
            "Runtime.MalformedHandlerName", f"Bad handler '{name}': it must be module.function"
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise Fault(
            "Runtime.ImportModuleError", f"Unable to import module '{module_name}': {error}"
        ) from error
    except SyntaxError as error:
        raise Fault(
            "Runtime.UserCodeSyntaxError", f"Syntax error in module '{module_name}': {error}"
        ) from error
    handler = getattr(module, function_name, None)
    if not callable(handler):
        raise Fault(
            "Runtime.HandlerNotFound",
            f"Handler '{function_name}' missing on module '{module_name}'",
        )
    return handler  # type: ignore[no-any-return]


def leave(
    api: RuntimeApi, path: str, error_type: str, error: BaseException, status: int
) -> NoReturn:
    log.critical("%s", error_type, exc_info=error)
    api.post_error(path, describe(error), {"Lambda-Runtime-Function-Error-Type": error_type})
    sys.exit(status)


def restore_from_snapshot(api: RuntimeApi) -> None:
    """SnapStart: hooks; the snapshot, taken while /restore/next waits; hooks. All as RIC does."""
    try:
        import snapshot_restore_py as hooks  # part of the managed runtime
    except ImportError:
        hooks = None
    try:
        while hooks and (before := hooks.get_before_snapshot()):
            call, args, kwargs = before.pop()  # last registered, first called
            call(*args, **kwargs)
        api.get("/restore/next")
    except Exception as error:
        leave(api, "/init/error", "Runtime.BeforeSnapshotError", error, 64)
    try:
        for call, args, kwargs in hooks.get_after_restore() if hooks else ():
            call(*args, **kwargs)
    except Exception as error:
        leave(api, "/restore/error", "Runtime.AfterRestoreError", error, 65)


def run(api: RuntimeApi, lines: OneLine) -> NoReturn:
    arrange_path()
    try:
        handler = load_handler(os.environ.get("_HANDLER", ""))
    except Exception as error:
        leave(api, "/init/error", header_type(error), error, 1)
    if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
        restore_from_snapshot(api)
    while True:
        invocation = api.get("/invocation/next")
        lines.request_id = invocation.headers["lambda-runtime-aws-request-id"]
        if trace_id := invocation.headers.get("lambda-runtime-trace-id"):
            os.environ["_X_AMZN_TRACE_ID"] = trace_id
        else:
            os.environ.pop("_X_AMZN_TRACE_ID", None)
        serve(api, handler, invocation)


def main() -> NoReturn:
    lines = configure_logging()
    address = os.environ.get("AWS_LAMBDA_RUNTIME_API", "")
    try:
        if not address:
            raise RuntimeApiError(
                "AWS_LAMBDA_RUNTIME_API is not set: this runs on Lambda, or under an emulator of it"
            )
        run(RuntimeApi(address), lines)
    except RuntimeApiError as error:
        log.critical("the Lambda Runtime API is gone: %s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
