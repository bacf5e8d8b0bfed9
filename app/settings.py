"""Everything an operator may change: each field is a ``DSE_*`` variable and an option of ``dse serve``."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

import model
from app.threads import thread_budget

BUNDLES = Path(model.__file__).parent / "bundles"


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


OptionalPath = Annotated[Path | None, BeforeValidator(_empty_is_none)]
"""A path; an empty variable means none."""


class Settings(BaseSettings):
    """Settings of the service, from arguments, then ``DSE_*`` variables, then these defaults."""

    model_config = SettingsConfigDict(env_prefix="DSE_", extra="forbid", frozen=True)

    bundle: Path = Field(BUNDLES / "dse-minilm-l6", description="the student's bundle")
    teacher: OptionalPath = Field(BUNDLES / "teacher-minilm-l6", description="the teacher's bundle; empty for none")
    index: OptionalPath = Field(None, description="the index folder; without one, search answers 404")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="port to listen on")
    threads: Annotated[int, Field(ge=1)] = Field(
        default_factory=thread_budget,
        description="CPU threads for inference and search",
    )
    depth: Annotated[int, Field(ge=1)] = Field(100, description="candidates the head scores a query")
    max_depth: Annotated[int, Field(ge=1)] = Field(10_000, description="largest depth, and k, a request may ask for")
    max_teacher_pairs: Annotated[int, Field(ge=1)] = Field(
        256, description="most pairs a request may have the teacher score"
    )
    max_batch: Annotated[int, Field(ge=1)] = Field(1024, description="most pairs, candidates or queries in a request")
    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(2**20, description="largest request body, in bytes")
