"""Sets of every kind whose answers a reader can work out, and the list that names them."""

import gzip
import json
from pathlib import Path

# The score is five times the cosine of the letters: stone and stove share four of five.
STS = [("listen", "silent", 5), ("stone", "notes", 5), ("google", "banana", 0), ("stone", "stove", 4), ("a", "z", 0)]
DUPLICATES = [("listen", "silent", 1), ("stone", "stove", 1), ("google", "banana", 0), ("a", "z", 0)]
DOCUMENTS = {"d1": "silent", "d2": "notes", "d3": "banana", "d4": "google", "d5": "cabana"}
QUERIES = {"q1": "listen", "q2": "stone", "q3": "never judged"}
JUDGED = {"q1": {"d1": 2}, "q2": {"d2": 1, "d5": 0}}

REGISTRY = """
[sts]
"words/test" = { file = "words/test.tsv.gz" }
[classification]
"anagrams/dev" = { file = "anagrams/dev.tsv", guarded = true }
[retrieval]
"letters/test" = { folder = "letters", guarded = true, remark = "made in a test" }
"""


def write_sets(folder: Path) -> Path:
    """An STS file (gzip), a file of duplicates (plain), a collection, and their list ``sets.toml``."""
    for name in ("words", "anagrams", "letters/qrels"):
        (folder / name).mkdir(parents=True)
    (folder / "words/test.tsv.gz").write_bytes(gzip.compress(_tsv(STS).encode()))
    (folder / "anagrams/dev.tsv").write_text(_tsv(DUPLICATES))
    corpus = [{"_id": id_, "title": "", "text": text} for id_, text in DOCUMENTS.items()]
    (folder / "letters/corpus.jsonl.gz").write_bytes(gzip.compress(_lines(corpus).encode()))
    (folder / "letters/queries.jsonl").write_text(_lines([{"_id": id_, "text": q} for id_, q in QUERIES.items()]))
    judgements = [f"{query}\t{document}\t{grade}" for query, of in JUDGED.items() for document, grade in of.items()]
    (folder / "letters/qrels/test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judgements]) + "\n")
    (folder / "sets.toml").write_text(REGISTRY)
    return folder


def _tsv(rows: list[tuple[str, str, float]]) -> str:
    return "\n".join(["sentence1\tsentence2\tscore", *("\t".join(map(str, row)) for row in rows)]) + "\n"


def _lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
