"""What will be asked of an index? Kept beside it, so that what follows it is proven by the same queries."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.typing import NDArray

from index.manifest import RESTORE, GenerationManifest, IndexFault
from index.recall import Aim, Scores

log = logging.getLogger("dse")

TEXTS_FILE, QUERIES_FILE = "queries.json", "queries.npy"
ASKED_FILES = (TEXTS_FILE, QUERIES_FILE)


def keep(home: Path, aim: Aim) -> None:
    """Write the queries of an aim, where it has them and their texts, into the folder of a generation."""
    if aim.queries is None or not aim.texts:
        return
    (home / TEXTS_FILE).write_text(json.dumps(aim.texts, ensure_ascii=False), "utf-8")
    np.save(home / QUERIES_FILE, aim.queries, allow_pickle=False)


def aim_after(
    before: GenerationManifest,
    home: Path | None,
    encode: Callable[[Sequence[str]], NDArray[np.float32]] | None = None,
    scores: Scores | None = None,
) -> Aim:
    """What the generation after another must be shown to find: as much, by the same queries where it was by queries.

    Args:
        before: the manifest of the one before.
        home: its folder; None: it is in Milvus, where queries are not kept.
        encode: another encoder, as a function; None: the queries' embeddings are taken as they are.
        scores: the head, to measure the depth anew; None: the depth there is stays.

    Raises:
        IndexFault: the queries cannot be read.
    """
    aim = Aim(scores=scores, depth=before.depth)
    if before.proof is not None:
        aim = replace(aim, target=before.proof.target, k=before.proof.k)
    if before.proof is None or before.proof.asked == "documents" or home is None:
        return aim
    if not before.files.keys() >= {*ASKED_FILES}:
        log.warning("%s was proven by queries that were not kept: what follows it is proven by documents", home)
        return aim
    try:
        texts = tuple(json.loads((home / TEXTS_FILE).read_text("utf-8")))
        kept = np.load(home / QUERIES_FILE, allow_pickle=False)
    except (OSError, ValueError, TokenError) as error:
        raise IndexFault(f"{home}: the queries that it was proven by cannot be read ({error}); {RESTORE}") from error
    return replace(aim, texts=texts, queries=kept if encode is None else encode(texts))
