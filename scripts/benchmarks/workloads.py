"""What do clients ask? Ready-made requests of each kind, no two of a kind alike, in the words of one wire format."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scripts.benchmarks.client import request_of
from scripts.console import BadInput

REQUESTS = 512
PAIRS, EMBEDDED, RERANKED, HITS = 32, 32, 25, 10

Body = Callable[[Callable[[int], list[str]]], dict[str, Any]]
"""A body, from a function that gives so many texts."""


def _pairs(count: int) -> Body:
    return lambda take: {"pairs": [take(2) for _ in range(count)]}


def _ranking(name: str) -> Body:
    return lambda take: {"query": take(1)[0], name: take(RERANKED)}


_EMBEDDINGS: dict[str, tuple[str, Callable[[int], Body]]] = {
    # base64, as OpenAI's client asks
    "native": ("/v1/embeddings", lambda n: lambda take: {"input": take(n), "encoding_format": "base64"}),
    "infinity": ("/embeddings", lambda n: lambda take: {"input": take(n), "encoding_format": "base64"}),
    "tei": ("/embed", lambda n: lambda take: {"inputs": take(n)}),
}
_RANKINGS = {
    "native": ("/v1/rerank", _ranking("documents")),
    "infinity": ("/rerank", _ranking("documents")),
    "tei": ("/rerank", _ranking("texts")),
}
_DIALECT = ("embedding", "embeddings", "rerank")
KINDS = {"native": ("pair", "pairs", *_DIALECT, "search"), "infinity": _DIALECT, "tei": _DIALECT}
"""One pair, 32 pairs, one embedding, 32 of them, 25 documents ranked, a search for 10; by wire format."""


def workloads(texts: Sequence[str], wire: str, wanted: Sequence[str]) -> dict[str, list[bytes]]:
    """Requests by kind; of a dialect's wire, those that the dialect has.

    Raises:
        BadInput: a kind is wanted that there is not.
    """
    bodies: dict[str, tuple[str, Body]] = {
        "embedding": (_EMBEDDINGS[wire][0], _EMBEDDINGS[wire][1](1)),
        "embeddings": (_EMBEDDINGS[wire][0], _EMBEDDINGS[wire][1](EMBEDDED)),
        "rerank": _RANKINGS[wire],
    }
    if wire == "native":
        bodies |= {
            "pair": ("/v1/similarity", _pairs(1)),
            "pairs": ("/v1/similarity", _pairs(PAIRS)),
            "search": ("/v1/search", lambda take: {"query": take(1)[0], "k": HITS}),
        }
    if unknown := [kind for kind in wanted if kind not in bodies]:
        raise BadInput(f"--kind {unknown[0]}: on this wire there are {', '.join(sorted(bodies))}")
    return {kind: _requests(*bodies[kind], texts) for kind in wanted}


def _requests(path: str, body: Body, texts: Sequence[str]) -> list[bytes]:
    """Requests with texts in an order of chance: two that are under way at once have hardly a text in common."""
    random = np.random.default_rng(0)

    def take(count: int) -> list[str]:
        return [texts[place] for place in random.integers(len(texts), size=count).tolist()]

    return [request_of(path, json.dumps(body(take)).encode()) for _ in range(REQUESTS)]
