"""Everything an operator may change: each field is a ``DSE_*`` variable; some are options of ``dse serve`` too."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

import model
from app.threads import thread_budget
from index.location import Consistency, Location, MilvusAccess, read_location
from index.manifest import IndexFault, Verify
from model.long_text import LongText

BUNDLES = Path(model.__file__).parent / "bundles"


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


def _located(value: object) -> object:
    try:
        return read_location(value) if isinstance(value, str) and value else _empty_is_none(value)
    except IndexFault as fault:
        raise ValueError(str(fault)) from fault


def _listed(value: object) -> object:
    """The parts of a variable that holds several, separated by commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _mapped(value: object) -> object:
    """``name=model`` parts as a mapping."""
    if not isinstance(value, str):
        return value
    parts = [part.partition("=") for part in value.split(",") if part.strip()]
    if wrong := [name for name, _, meant in parts if not name.strip() or not meant.strip()]:
        raise ValueError(f"write name=model, separated by commas; {wrong[0].strip()!r} stands for no model")
    return {name.strip(): meant.strip() for name, _, meant in parts}


OptionalPath = Annotated[Path | None, BeforeValidator(_empty_is_none)]
"""A path; an empty variable means none."""
OptionalLocation = Annotated[Location | None, BeforeValidator(_located)]
"""A folder, or the address of an index in a Milvus; an empty variable means none."""
Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_listed)]
Aliases = Annotated[dict[str, str], NoDecode, BeforeValidator(_mapped)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
OptionalCount = Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_empty_is_none)]
"""A number from 1; an empty variable means none."""
Secrets = Annotated[SecretStr | None, BeforeValidator(_empty_is_none)]
"""Text that is never printed; an empty variable means none."""


PREFIX = "DSE_"
USUAL_DEPTH = 100
"""Candidates the head scores for a query, where neither a setting nor an index says how many."""
CLOSE = 0.85
"""Of two names, from which one is taken for a slip of the other."""


class Settings(BaseSettings):
    """Settings of the service, from arguments, then ``DSE_*`` variables, then these defaults."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True)

    bundle: Path = Field(BUNDLES / "dse-minilm-l6", description="the student's bundle")
    teacher: OptionalPath = Field(BUNDLES / "teacher-minilm-l6", description="the teacher's bundle; empty for none")
    bundles: Paths = Field(
        default_factory=tuple, description="bundles of more students, served by their names; separated by commas"
    )
    model_aliases: Aliases = Field(
        default_factory=dict, description="other names for models: `name=model`, separated by commas"
    )
    index: OptionalLocation = Field(
        None, description="the index folder, or `milvus://host:port/name`; without one, search answers 404"
    )
    milvus_token: Secrets = Field(None, description="of an index in Milvus: `user:password` or an API key")
    milvus_database: str = Field("", description="of an index in Milvus: the database; empty for the server's default")
    milvus_tls: bool = Field(False, description="speak TLS with Milvus")
    milvus_ca_file: OptionalPath = Field(
        None, description="who signed Milvus's certificate (PEM); without it, those that the system trusts"
    )
    milvus_timeout: Seconds = Field(
        5.0, description="seconds a search, a look-up or a write in Milvus may take, retries included"
    )
    milvus_consistency: Consistency = Field(
        "strong",
        description="writes that a search in Milvus sees: all (strong), this process's (session), older ones (bounded)",
    )
    read_only: bool = Field(
        False, description="refuse every change to the index (409); a replica's disk may be read-only"
    )
    compact_after: Annotated[int, Field(ge=0)] = Field(
        10_000, description="changes after which they are folded into a new generation by themselves; 0 for never"
    )
    long_text: LongText = Field(
        "truncate",
        description="what becomes of a text that is longer than a student reads: truncate (its beginning is read) or "
        "chunk (the mean of its pieces); an index is searched as it was built",
    )
    verify: Verify = Field(
        "full",
        description="what is compared with the index's manifest at start: quick (sizes, headers) or full (every byte)",
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="port to listen on")
    threads: Annotated[int, Field(ge=1)] = Field(
        default_factory=thread_budget,
        description="CPU threads for inference and search",
    )
    depth: OptionalCount = Field(
        None,
        description="candidates the head scores for a query; without it, as many as the index was measured to need, "
        f"else {USUAL_DEPTH}",
    )
    max_depth: Annotated[int, Field(ge=1)] = Field(10_000, description="largest depth, and k, a request may ask for")
    max_teacher_pairs: Annotated[int, Field(ge=1)] = Field(
        256, description="most pairs a request may have the teacher score"
    )
    max_batch: Annotated[int, Field(ge=1)] = Field(1024, description="most pairs, candidates or queries in a request")
    max_candidates: Annotated[int, Field(ge=1)] = Field(
        200_000, description="most candidates a batch of queries may have scored in all"
    )
    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(2**20, description="largest request body, in bytes")
    batch_tokens: Annotated[int, Field(ge=1)] = Field(
        512, description="tokens of a batch for each thread; a longer text runs alone"
    )
    max_queue_tokens: Annotated[int, Field(ge=1)] = Field(
        2**18, description="most tokens that may wait for a model (429), and most in a request (413)"
    )
    max_wait: Annotated[float, Field(gt=0)] = Field(
        1.5, description="seconds of work that may be before a request, or 16 times its own where that is more (429)"
    )
    max_requests: Annotated[int, Field(ge=1)] = Field(128, description="most requests in progress at once (429)")
    timeout: Seconds = Field(30.0, description="seconds a request may take (504), at most a day")
    drain: Annotated[int, Field(ge=0)] = Field(
        20, description="seconds that requests in progress are given after SIGTERM"
    )
    api_keys: Secrets = Field(None, description="keys that requests must carry one of, separated by commas")
    api_keys_file: OptionalPath = Field(None, description="a file of such keys, one a line")
    admin_keys: Secrets = Field(None, description="keys that changing, reloading and compacting the index take")
    admin_keys_file: OptionalPath = Field(None, description="a file of admin keys, one a line")
    cors_origins: str | None = Field(
        None, description="origins whose pages may call the service, separated by commas; * for all"
    )
    log_format: Literal["json", "text"] = Field("text", description="how the log is written: json or text")

    @model_validator(mode="after")
    def _defaults_are_within_their_limits(self) -> Self:
        if self.depth is not None and self.depth > self.max_depth:
            raise ValueError(f"DSE_DEPTH ({self.depth}) is above DSE_MAX_DEPTH ({self.max_depth})")
        return self

    @property
    def tokens_of_a_batch(self) -> int:
        """Most tokens of a batch: each thread's, together."""
        return self.batch_tokens * self.threads

    def milvus_access(self) -> MilvusAccess:
        """How a Milvus is reached."""
        return MilvusAccess(
            token=self.milvus_token.get_secret_value() if self.milvus_token else None,
            database=self.milvus_database,
            tls=self.milvus_tls,
            ca_file=self.milvus_ca_file,
            timeout=self.milvus_timeout,
            consistency=self.milvus_consistency,
        )

    def depth_for(self, measured: int | None) -> int:
        """Candidates the head scores for a query: as set, else as an index was measured to need, else as usual."""
        return self.depth or min(measured or USUAL_DEPTH, self.max_depth)


def misspelt(variables: Iterable[str]) -> dict[str, str]:
    """Names of variables that are no setting but nearly one, each with the one that is probably meant.

    >>> misspelt(["DSE_API_KEY", "DSE_API_KEYS", "DSE_DATA", "PATH"])
    {'DSE_API_KEY': 'DSE_API_KEYS'}
    """
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    strange = [name for name in variables if name.upper().startswith(PREFIX) and name.upper() not in known]
    near = {name: get_close_matches(name.upper(), known, 1, CLOSE) for name in strange}
    return {name: meant[0] for name, meant in near.items() if meant}
