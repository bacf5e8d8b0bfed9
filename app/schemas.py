"""What goes over the wire: requests, checked; responses, documented."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from index.sources import unusable, unusable_metadata


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("the text is empty")
    if problem := unusable(value):
        raise ValueError(f"the text holds {problem}; remove it")
    return value


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    if problem := unusable_metadata(value):
        raise ValueError(f"metadata {problem}")
    return value


# Of a faulty body one fault is told. Lists of it have ``fail_fast``: pydantic would note a fault for each of half a
# million items, which takes seconds of the event loop.
Text = Annotated[str, AfterValidator(_text)]
Rerank = Literal["head", "none", "teacher"]


class Closed(BaseModel):
    """What has no fields but its own: others are refused, so that a misspelt option is never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _first_unknown_field(cls, body: Any) -> Any:
        """Of unknown fields the first is left: pydantic would note a fault for each, however many there are."""
        if not isinstance(body, dict):
            return body
        known = cls.model_fields
        first = next((name for name in body if name not in known), None)
        return {name: value for name, value in body.items() if name in known or name == first}


class Request(Closed):
    """A body of a native route."""

    truncate: bool = Field(True, description="cut texts that are longer than the model reads; false refuses them (422)")


class SimilarityRequest(Request):
    """Pairs, or one query against candidates."""

    pairs: list[Annotated[list[Text], Field(min_length=2, max_length=2)]] | None = Field(
        None, min_length=1, fail_fast=True, examples=[[["A man plays a flute.", "Someone makes music."]]]
    )
    query: Text | None = None
    candidates: list[Text] | None = Field(None, min_length=1, fail_fast=True)
    raw_scores: bool = Field(False, description="answer the logit instead of the 0..1 score")

    @model_validator(mode="after")
    def _pairs_or_candidates(self) -> Self:
        neither = self.query is None and self.candidates is None
        both = self.query is not None and self.candidates is not None
        if not (neither if self.pairs is not None else both):
            raise ValueError("give either pairs, or query and candidates")
        return self

    def as_pairs(self) -> list[tuple[str, str]]:
        """The pairs, however they were given, in input order."""
        if self.pairs is not None:
            return [(left, right) for left, right in self.pairs]
        assert self.query is not None  # the validator saw to it, and
        assert self.candidates is not None
        return [(self.query, candidate) for candidate in self.candidates]


class PairScore(BaseModel):
    """One pair's answer."""

    index: int
    score: float = Field(description="0..1, the expected gold/5 of STS-B; the logit with raw_scores")
    similarity: float | None = Field(description="cosine of the embeddings; null from a teacher")
    truncated: bool = Field(description="a sentence was longer than the model reads, and was cut")


class SimilarityResponse(BaseModel):
    """Answers in input order."""

    model: str
    results: list[PairScore]


Count = Annotated[int, Field(ge=1, le=2**31 - 1)]


Filter = Annotated[
    dict[str, Any] | None,
    Field(
        description="which documents may be found, by their metadata; the language is described in docs/index.md",
        examples=[{"lang": "en", "year": {"$gte": 2020}, "tags": {"$in": ["news", "sport"]}}],
    ),
]


class _Search(Request):
    k: Count = Field(10, description="hits to answer")
    depth: Count | None = Field(None, description="candidates to score; at least k; default: the service's")
    rerank: Rerank = Field("head", description="who scores the candidates")
    filter: Filter = None


class SearchRequest(_Search):
    """One query."""

    query: Text = Field(examples=["wait for several threads to finish"])


class BatchSearchRequest(_Search):
    """Several queries, answered alike."""

    queries: list[Text] = Field(min_length=1, fail_fast=True)


class HitBody(BaseModel):
    """A document that was found and scored."""

    id: str
    text: str
    score: float
    similarity: float
    metadata: dict[str, Any]


class Hits(BaseModel):
    """Hits of one query, best first."""

    hits: list[HitBody]
    truncated: bool = Field(description="a text was longer than a model reads, and was cut")


class SearchResponse(Hits):
    """Hits, who scored them, and from which generation of the index."""

    model: str
    generation: str


class BatchSearchResponse(BaseModel):
    """One result a query, in input order."""

    results: list[Hits]
    model: str
    generation: str


class CompareRequest(Request):
    """A query against given candidates, or against the k best hits of the index."""

    query: Text
    candidates: list[Text] | None = Field(None, min_length=1, fail_fast=True)
    k: Count = 10
    filter: Filter = None

    @model_validator(mode="after")
    def _filter_of_the_index(self) -> Self:
        if self.candidates is not None and self.filter is not None:
            raise ValueError("a filter chooses among the documents of the index: give either candidates or a filter")
        return self


class Standing(BaseModel):
    """A score and the rank it gives, from 1."""

    score: float
    rank: int


class ComparedCandidate(BaseModel):
    """A candidate as the student and as the teacher see it."""

    index: int
    id: str | None
    text: str
    student: Standing
    teacher: Standing


class Agreement(BaseModel):
    """Rank correlations of student and teacher; null where ranks do not vary."""

    spearman: float | None
    kendall: float | None


class Milliseconds(BaseModel):
    """What each side took for this request: the student from text to scores, with its search where there was one."""

    student: float
    teacher: float


class CompareResponse(BaseModel):
    """Student and teacher side by side, in the student's order."""

    student: str
    teacher: str
    results: list[ComparedCandidate]
    agreement: Agreement
    milliseconds: Milliseconds
    truncated: bool


class ProvenRecall(BaseModel):
    """How much of an exhaustive search's answer the index finds, as shown before it was published."""

    target: float
    k: int
    recall: float
    lower_bound: float = Field(description="of the recall: one-sided, 95 %; where nothing is estimated, itself")
    queries: int = Field(description="that it was shown with")


class IndexResponse(BaseModel):
    """What is being searched."""

    generation: str
    documents: int
    dims: int
    recipe: str
    model: str
    encoder_digest: str
    created: str | None
    recall: ProvenRecall | None = Field(description="null: nothing was proven")
    changes_pending: int = Field(description="changes that are searched, and not yet folded into the generation")
    read_only: bool = Field(description="writes are answered with 409")
    stays_because: str | None = Field(
        description="why a generation that was published since is not searched, but the one before; null: it is"
    )


class DocumentBody(Closed):
    """A document as it is stored."""

    id: Text
    text: Text
    metadata: Annotated[dict[str, Any], AfterValidator(_metadata)] = {}


LONGEST_ID = 4096
"""Characters: an id stands in the path of a request, percent-encoded, which servers read up to 64 KiB of."""


class NewDocument(DocumentBody):
    """A document to store."""

    id: Annotated[Text, Field(max_length=LONGEST_ID)]


class PutDocumentsRequest(Request):
    """Documents to add, or to put in the place of those with the same id; of one id, the last stays."""

    documents: list[NewDocument] = Field(
        min_length=1,
        fail_fast=True,
        examples=[[{"id": "a/1", "text": "A man plays a flute.", "metadata": {"source": "captions"}}]],
    )


class DocumentStatus(BaseModel):
    """What became of one document."""

    id: str
    status: Literal["created", "updated"]
    truncated: bool = Field(description="the text was longer than the model reads; what is beyond cannot be found")


class PutDocumentsResponse(BaseModel):
    """One answer a document, in input order. All are durable, and found by the next search."""

    results: list[DocumentStatus]


class ErrorDetail(BaseModel):
    """What went wrong."""

    type: str
    message: str
    param: str | None = None


class ErrorBody(BaseModel):
    """Every error of a native route."""

    error: ErrorDetail
