"""The edge of the doors that Powertools routes: account, admin, token.

Every answer gets the headers that all answers have, every error becomes the one envelope, and every
log line has the request's id. The chat and preflight doors do not import this: Powertools takes
longer to import than all else that they need.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError

from weir.aws import logs
from weir.aws.lean import AwsError
from weir.errors import Internal, NotFound, Refusal, TooLarge, store_unavailable
from weir.web.origins import Origins
from weir.web.request import Request, answer_headers, refusal_answer

# Status, headers and body of a refusal, for pages of these origins.
Refuse = Callable[[Refusal, Request, Origins], tuple[int, dict[str, str], str]]

MAX_ANSWER_BYTES = 4_500_000  # Lambda takes 6 MB, in which the body is escaped once more


class Edge:
    """Routes return a JSON value or a Response, and raise what they cannot answer."""

    def __init__(
        self,
        service: str,
        readable_by: Callable[[], Origins],
        *,
        store_errors: tuple[type[Exception], ...] = (AwsError,),
        not_found: str = "There is nothing of that name.",
        too_long: str = "The answer would be too long. Ask for less.",
        validate: bool = False,
        names_under: Mapping[str, Sequence[str]] | None = None,
        encoded: bool = False,
        spelled: Refuse = refusal_answer,
    ) -> None:
        """`readable_by` returns the origins whose pages may read an answer, and never fails.
        `store_errors` is what a call to AWS raises. `validate` checks bodies and queries by the
        types of a route, with pydantic. What follows a prefix of `names_under` in a path is one
        name, slashes included, up to one of the suffixes given with it: its route gets it encoded,
        because a parameter of Powertools ends at a slash. `encoded`: routes get every
        segment encoded. `spelled` is how refusals are written.
        """
        logs.escape_root()
        self.logger = Logger(service=service, json_serializer=logs.line)
        self.app = APIGatewayRestResolver(enable_validation=validate)
        self._readable_by = readable_by
        self._store_errors = store_errors
        self._not_found = not_found
        self._too_long = too_long
        self._names_under = names_under or {}
        self._encoded = encoded
        self._spelled = spelled
        self.app.exception_handler(Exception)(self.refuse)

    @property
    def request(self) -> Request:
        """The request that is being answered."""
        request: Request = self.app.context["request"]
        return request

    def resolve(
        self,
        event: dict[str, Any],
        context: Any,
        admit: Callable[[Request], object] = lambda request: None,
    ) -> dict[str, Any]:
        """Answer a proxy event of API Gateway. `admit` raises if no route may see the request."""
        request = Request.from_event(event)
        self.logger.append_keys(request_id=request.request_id)
        self.app.append_context(request=request)  # type: ignore[no-untyped-call]
        # Routes read headers from `request`. Powertools would refuse a body by its media type,
        # which documented calls omit.
        plain = {
            **event,
            "headers": {"Content-Type": "application/json"},
            "path": self._routed(request.path),
        }
        try:
            admit(request)
            answer = self.app.resolve({**plain, "multiValueHeaders": None}, context)
            if len(answer["body"] or "") > MAX_ANSWER_BYTES:
                raise TooLarge(self._too_long)
        except Exception as error:
            status, headers, body = self._refusal(error, request)
            return {"statusCode": status, "multiValueHeaders": _several(headers), "body": body}
        ours = _several(answer_headers(request, self._readable_by()))
        return {**answer, "multiValueHeaders": {**ours, **answer["multiValueHeaders"]}}

    @staticmethod
    def json(
        body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Response[str]:
        """Return an answer in JSON, for routes whose status is not always 200."""
        text = json.dumps(body, separators=(",", ":"))
        return Response(status, "application/json", text, headers=dict(headers or {}))

    def refuse(self, error: Exception, spelled: Refuse | None = None) -> Response[str]:
        """For exception handlers of `app`; every exception without one of its own comes here.
        `spelled` is how a route answers whose errors another standard lays down.
        """
        status, headers, body = self._refusal(error, self.request, spelled)
        return Response(status, body=body, headers=headers)

    def _routed(self, path: str) -> str:
        if self._encoded:
            return "/".join(quote(unquote(part), safe="") for part in path.split("/"))
        for prefix, suffixes in self._names_under.items():
            if path.startswith(prefix):
                name = path.removeprefix(prefix)
                suffix = next((s for s in suffixes if name.endswith(s) and name != s), "")
                # Some clients encode a name and some do not; a lone surrogate cannot come.
                name = unquote(name.removesuffix(suffix))
                return prefix + quote(name, safe="") + suffix
        return path

    def _refusal(
        self, error: Exception, request: Request, spelled: Refuse | None = None
    ) -> tuple[int, dict[str, str], str]:
        if isinstance(error, Refusal):
            refusal = error
        elif isinstance(error, NotFoundError):  # Powertools': no route has this path and method
            refusal = NotFound(self._not_found)
        else:
            self.logger.error("failed", exc_info=error)
            refusal = store_unavailable() if isinstance(error, self._store_errors) else Internal()
        seen = {"status": refusal.status, "code": refusal.code, "details": refusal.details}
        self.logger.info("refused", extra=seen)
        return (spelled or self._spelled)(refusal, request, self._readable_by())


def _several(headers: Mapping[str, str]) -> dict[str, list[str]]:
    return {name: [value] for name, value in headers.items()}
