"""What does a client hear when something is wrong? One table from exceptions to answers."""

import logging
from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from app.dialects import Fault, native, shape_of
from index.filters import FilterError
from index.manifest import AwayFault, BusyFault, IndexFault, ReadOnlyFault

log = logging.getLogger("dse")

ID_HEADER = "X-Request-Id"
REQUEST_ID = "request_id"
"""Where a request's state holds its id."""


class ServiceError(Exception):
    """A request that cannot be answered, for a reason its sender should know."""

    def __init__(self, status: int, message: str, param: str | None = None, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.retry_after = retry_after  # seconds


class ErrorResponse(JSONResponse):
    """An error as its answer, in the shape that the client of the requested path expects."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(native(fault), fault.status, {"WWW-Authenticate": "Bearer"} if fault.status == 401 else None)
        self._fault = fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it: only now is it known who asked, whoever made the answer."""
        self.body = self.render(shape_of(scope)(self._fault))
        self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def error_response(status: int, message: str, param: str | None = None) -> JSONResponse:
    """An error as its answer."""
    return ErrorResponse(Fault(status, message, param))


def refusal_response(error: ServiceError) -> JSONResponse:
    """A refusal as its answer, with when to try again."""
    answer = error_response(error.status, error.message, error.param)
    if error.retry_after is not None:
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer


def _fault_response(fault: IndexFault) -> JSONResponse:
    if isinstance(fault, ReadOnlyFault):
        return error_response(409, str(fault))
    answer = error_response(503, str(fault))
    if isinstance(fault, AwayFault | BusyFault):
        answer.headers["Retry-After"] = "1"
    return answer


def install(app: FastAPI) -> None:
    """Answer every failure of a route in the shape of the contract, without a stack trace."""

    @app.exception_handler(ServiceError)
    async def service_error(_: Request, error: ServiceError) -> JSONResponse:
        return refusal_response(error)

    @app.exception_handler(FilterError)
    async def bad_filter(_: Request, error: FilterError) -> JSONResponse:
        return error_response(422, f"filter: {error}", location(["filter", error.place]).rstrip("."))

    @app.exception_handler(IndexFault)
    async def index_fault(request: Request, fault: IndexFault) -> JSONResponse:
        log.warning("%s %s: %s", request.method, request.url.path, fault)
        return _fault_response(fault)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return error_response(422, f"the body is not JSON: {first['ctx']['error']}")
        where = location(first["loc"])
        # Never the input itself: it may be huge, and half a surrogate pair in it cannot be sent back.
        message = str(first["msg"]).removeprefix("Value error, ")
        if first["type"] in ("model_attributes_type", "dict_type") and not where:
            return error_response(422, "send a JSON object with the header Content-Type: application/json")
        return error_response(422, f"{where or 'the body'}: {message}", where or None)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:  # FastAPI's word for a body whose bytes are no text, or nested beyond reading
            return error_response(422, "the body is not JSON: it cannot be decoded")
        answer = error_response(error.status_code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        answer = error_response(500, "the service failed; its log says why")
        answer.headers[ID_HEADER] = getattr(request.state, REQUEST_ID, "")  # this answer passes no middleware
        return answer


def location(loc: Sequence[int | str]) -> str:
    """``candidates.3`` of pydantic's path to a faulty value."""
    return ascii_safe(".".join(str(part) for part in loc if part != "body"))[:100]


def ascii_safe(text: str) -> str:
    """A text that can always be sent: what is no character becomes an escape."""
    return text.encode("utf-8", "backslashreplace").decode()
