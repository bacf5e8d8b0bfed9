"""What have the requests of all dialects in common? Their texts, and who is to answer."""

from typing import Annotated, Any, TypeVar

from fastapi import Response
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import to_json

from index.sources import unusable


def readable(text: str) -> str:
    """The text, if a model can read it: blank ones it can, as the services that these dialects are of."""
    if not text:
        raise ValueError("the text is empty")
    if problem := unusable(text.replace("\0", " ")):  # nothing is stored here, so a NUL does no harm
        raise ValueError(f"the text holds {problem}; remove it")
    return text


def _several(value: Any) -> Any:
    """One text is a list of one."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and any(isinstance(item, int | list) for item in value):
        raise ValueError(
            "token ids were sent, of a tokenizer that is not this model's: send texts "
            "(with LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False)"
        )
    return value


def _text_of(document: Any) -> Any:
    """A document's text, if it is an object that has one."""
    return document["text"] if isinstance(document, dict) and "text" in document else document


_STRING = {"type": "string", "minLength": 1}
_STRINGS = {"type": "array", "items": _STRING, "minItems": 1}
_DOCUMENT = {"anyOf": [_STRING, {"type": "object", "properties": {"text": _STRING}, "required": ["text"]}]}

Readable = Annotated[str, AfterValidator(readable), WithJsonSchema(_STRING)]
Texts = Annotated[
    list[Readable],
    Field(min_length=1, fail_fast=True),
    BeforeValidator(_several),
    WithJsonSchema({"anyOf": [_STRING, _STRINGS]}),
]
"""One text or several; always a list."""
Documents = Annotated[
    list[Annotated[Readable, BeforeValidator(_text_of), WithJsonSchema(_DOCUMENT)]],
    Field(min_length=1, fail_fast=True),
]
"""Texts, given as such or as objects with a ``text``."""


class Spoken(BaseModel):
    """A body of a dialect: fields that are unknown are ignored, since client libraries send more than is asked for."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    model: str | None = Field(None, description="who answers: a model's name, teacher, default, or an alias")
    truncate: bool | None = Field(None, description="false: refuse texts that are longer than the model reads (422)")

    @property
    def may_cut(self) -> bool:
        """Long texts are cut, unless this was forbidden."""
        return self.truncate is not False


Body = TypeVar("Body", bound=BaseModel)


def parsed(kind: type[Body], body: dict[str, Any]) -> Body:
    """A body as one of the kinds that share its path.

    Raises:
        RequestValidationError: it is not of that kind.
    """
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]) from error


def any_of(*kinds: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI is told of a body of one of several kinds."""
    schemas = [_inlined(schema, schema.pop("$defs", {})) for schema in (kind.model_json_schema() for kind in kinds)]
    return {"requestBody": {"content": {"application/json": {"schema": {"anyOf": schemas}}}}}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A schema with its definitions in the place of the references to them, which would lead nowhere."""
    if isinstance(schema, list):
        return [_inlined(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: _inlined(part, definitions) for name, part in schema.items()}


def json_response(content: Any, headers: dict[str, str] | None = None) -> Response:
    """Content as JSON, without a look at every number of every embedding."""
    return Response(to_json(content), media_type="application/json", headers=headers)
