"""In whose words is an error told? Each client library reads the error body of the service it was written for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

KINDS = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
    422: "invalid",
    429: "overloaded",
    500: "internal",
    503: "not_ready",
    504: "timeout",
}
"""The type of an error on native routes, by its status."""


@dataclass(frozen=True)
class Fault:
    """What went wrong, before anybody's words for it."""

    status: int
    message: str
    param: str | None = None  # the field that is at fault


Shape = Callable[[Fault], dict[str, Any]]


def native(fault: Fault) -> dict[str, Any]:
    """``{"error": {"type", "message", "param"?}}``."""
    error = {"type": KINDS.get(fault.status, "error"), "message": fault.message}
    return {"error": error if fault.param is None else error | {"param": fault.param}}


def openai(fault: Fault) -> dict[str, Any]:
    """``{"error": {"message", "type", "param", "code"}}``, as OpenAI and infinity answer."""
    kind = "server_error" if fault.status >= 500 else "invalid_request_error"
    codes = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
    if fault.param == "model":
        codes[404] = "model_not_found"
    if fault.status == 429:
        kind = "rate_limit_error"
    error = {"message": fault.message, "type": kind, "param": fault.param, "code": codes.get(fault.status)}
    return {"error": error}


def tei(fault: Fault) -> dict[str, Any]:
    """``{"error", "error_type"}``, as text-embeddings-inference answers."""
    types = {429: "Overloaded", 500: "Backend", 503: "Unhealthy", 504: "Overloaded"}
    return {"error": fault.message, "error_type": types.get(fault.status, "Validation")}


def cohere(fault: Fault) -> dict[str, Any]:
    """``{"message"}``, as Cohere answers."""
    return {"message": fault.message}


def jina(fault: Fault) -> dict[str, Any]:
    """``{"detail"}``, as Jina answers, beside Cohere's ``message``: both send to the same path."""
    return {"detail": fault.message, "message": fault.message}


SHAPES: Mapping[str, Shape] = {
    "/": tei,
    "/embed": tei,
    "/embeddings": openai,
    "/info": tei,
    "/models": openai,
    "/predict": tei,
    "/rerank": tei,
    "/similarity": tei,
    "/v1/embeddings": openai,
    "/v1/models": openai,
    "/v1/rerank": jina,
    "/v2/rerank": cohere,
}
"""Whose words, by path; all other paths are native."""

_TOLD = "dialect"


def tell(scope: Scope, shape: Shape) -> None:
    """From here on, errors of this request are told so: where several dialects share a path, the body decides."""
    scope.setdefault("state", {})[_TOLD] = shape


def shape_of(scope: Scope) -> Shape:
    """How errors of a request are told."""
    path: str = scope["path"]
    if path.startswith(("/v1/models/", "/models/")):
        return openai
    told: Shape | None = scope.get("state", {}).get(_TOLD)
    return told or SHAPES.get(path, native)
