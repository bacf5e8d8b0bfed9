"""Which public data sets are there by name, where do they lie, under what terms, and how many rows do they have?

Row counts are those published by the makers of each set, of the rows that have a label. Terms are as known, not legal
advice. Files on the hub are named as of ``main``: parquet as its makers uploaded it, or as the hub itself converts any
set that it can show (``refs/convert/parquet``, see https://huggingface.co/docs/dataset-viewer/parquet).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from scripts.datasets.forms import Row, ToUniform, as_is

CONVERTED = "refs/convert/parquet"


@dataclass(frozen=True)
class HubFile:
    """A file of a dataset repository on the Hugging Face hub."""

    repository: str
    path: str
    revision: str = "main"


@dataclass(frozen=True)
class Part:
    """One file of a set: its name below the set's folder, its original, and how many rows are published.

    ``rows`` is None where no count was published of what is written.
    """

    file: str
    original: HubFile
    rows: int | None
    to_uniform: ToUniform


@dataclass(frozen=True)
class PublicSet:
    """A data set that can be had by name."""

    terms: str
    parts: tuple[Part, ...]

    @property
    def sources(self) -> str:
        """Its repositories on the hub."""
        return ", ".join(dict.fromkeys(part.original.repository for part in self.parts))

    @property
    def size(self) -> str:
        """Its published row counts, for people."""
        return ", ".join(
            f"{part.file.split('.')[0]} {'?' if part.rows is None else format(part.rows, ',')}" for part in self.parts
        )


def scored(left: str, right: str, score: str, times: float = 1.0) -> ToUniform:
    """Pairs with a number, which is multiplied and rounded to four decimals."""

    def to_uniform(row: Row) -> Row:
        value = float(row[score]) * times
        if not isfinite(value):
            raise ValueError(f"{score} is {value}")
        return {"sentence1": row[left], "sentence2": row[right], "score": str(round(value, 4))}

    return to_uniform


def labelled(left: str, right: str, names: Sequence[str]) -> ToUniform:
    """Pairs with a class: its number is in the column ``label``, -1 stands for none, its name is written."""

    def to_uniform(row: Row) -> Row | None:
        label = row["label"]
        if label is None or label == -1:
            return None
        if not 0 <= label < len(names):
            raise ValueError(f"label {label} is none of {dict(enumerate(names))}")
        return {"sentence1": row[left], "sentence2": row[right], "score": names[int(label)]}

    return to_uniform


def _parts(repository: str, pattern: str, to_uniform: ToUniform, rows: dict[str, tuple[str, int]]) -> tuple[Part, ...]:
    """Parts of one repository; ``rows`` maps our split to the repository's and its count."""
    return tuple(
        Part(f"{split}.tsv.gz", HubFile(repository, pattern.format(theirs)), count, to_uniform)
        for split, (theirs, count) in rows.items()
    )


def _glue(task: str, to_uniform: ToUniform, rows: dict[str, tuple[str, int]]) -> tuple[Part, ...]:
    return _parts("nyu-mll/glue", task + "/{}-00000-of-00001.parquet", to_uniform, rows)


def _beir(name: str, documents: int, queries: int, judgements: dict[str, int | None]) -> tuple[Part, ...]:
    """The parts of a BEIR set (Thakur et al., 2021, arXiv:2104.08663); judgements are counted where relevant."""
    return (
        Part("corpus.jsonl.gz", _beir_file(name, "corpus"), documents, as_is),
        Part("queries.jsonl.gz", _beir_file(name, "queries"), queries, as_is),
        *(
            Part(f"qrels/{split}.tsv", HubFile(f"BeIR/{name}-qrels", f"{split}.tsv"), count, as_is)
            for split, count in judgements.items()
        ),
    )


def _beir_file(name: str, what: str) -> HubFile:
    return HubFile(f"BeIR/{name}", f"{what}/{what}-00000-of-00001.parquet")


NLI = ("entailment", "neutral", "contradiction")
BINARY = ("0", "1")
_BEIR_TERMS = "BEIR's release is tagged CC BY-SA 4.0; the source's own terms hold: "

CATALOGUE: dict[str, PublicSet] = {
    "stsb": PublicSet(
        "mixed, largely CC BY-SA 4.0, MSR and news parts for research only",
        _parts(
            "sentence-transformers/stsb",
            "data/{}-00000-of-00001.parquet",
            scored("sentence1", "sentence2", "score", times=5),  # published there as 0..1
            {"train": ("train", 5749), "dev": ("validation", 1500), "test": ("test", 1379)},
        ),
    ),
    "sick": PublicSet(
        "CC BY-NC-SA 3.0",
        tuple(
            Part(
                f"{split}.tsv.gz",
                HubFile("RobZamp/sick", f"default/{theirs}/0000.parquet", CONVERTED),
                rows,
                scored("sentence_A", "sentence_B", "relatedness_score"),
            )
            for split, theirs, rows in (("train", "train", 4439), ("dev", "validation", 495), ("test", "test", 4906))
        ),
    ),
    "semrel_eng": PublicSet(
        "none stated, shared task, research",
        _parts(
            "SemRel/SemRel2024",
            "eng/{}-00000-of-00001.parquet",
            scored("sentence1", "sentence2", "label"),
            {"train": ("train", 5500), "dev": ("dev", 250), "test": ("test", 2600)},
        ),
    ),
    "mrpc": PublicSet(
        "Microsoft research terms, non-commercial",
        _glue(
            "mrpc",
            labelled("sentence1", "sentence2", BINARY),
            {"train": ("train", 3668), "dev": ("validation", 408), "test": ("test", 1725)},
        ),
    ),
    "qqp": PublicSet(
        "Quora's terms, non-commercial",
        _glue(
            "qqp",
            labelled("question1", "question2", BINARY),
            {"train": ("train", 363_846), "dev": ("validation", 40_430)},
        ),
    ),
    "mnli": PublicSet(
        "OANC free terms, some CC parts",
        # The official test parts have no public labels: the matched development part is dev, the mismatched is test.
        _glue(
            "mnli",
            labelled("premise", "hypothesis", NLI),
            {
                "train": ("train", 392_702),
                "dev": ("validation_matched", 9815),
                "test": ("validation_mismatched", 9832),
            },
        ),
    ),
    "qnli": PublicSet(
        "CC BY-SA 4.0 (SQuAD)",
        _glue(
            "qnli",
            labelled("question", "sentence", ("entailment", "not_entailment")),
            {"train": ("train", 104_743), "dev": ("validation", 5463)},
        ),
    ),
    "rte": PublicSet(
        "none stated",
        _glue(
            "rte",
            labelled("sentence1", "sentence2", ("entailment", "not_entailment")),
            {"train": ("train", 2490), "dev": ("validation", 277)},
        ),
    ),
    "snli": PublicSet(
        "CC BY-SA 4.0",
        _parts(
            "stanfordnlp/snli",
            "plain_text/{}-00000-of-00001.parquet",
            labelled("premise", "hypothesis", NLI),
            {"train": ("train", 549_367), "dev": ("validation", 9842), "test": ("test", 9824)},
        ),
    ),
    "xnli_en": PublicSet(
        "CC BY-NC 4.0",
        _parts(
            "facebook/xnli",
            "en/{}-00000-of-00001.parquet",
            labelled("premise", "hypothesis", NLI),
            {"dev": ("validation", 2490), "test": ("test", 5010)},
        ),
    ),
    "paws": PublicSet(
        "free use with acknowledgement",
        _parts(
            "google-research-datasets/paws-x",
            "en/{}-00000-of-00001.parquet",
            labelled("sentence1", "sentence2", BINARY),
            {"train": ("train", 49_401), "dev": ("validation", 2000), "test": ("test", 2000)},
        ),
    ),
    "quora_duplicates": PublicSet(
        "Quora's terms, non-commercial",
        _parts(
            "sentence-transformers/quora-duplicates",
            "pair-class/{}-00000-of-00001.parquet",
            labelled("sentence1", "sentence2", BINARY),
            {"train": ("train", 404_290)},
        ),
    ),
    "nfcorpus": PublicSet(
        _BEIR_TERMS + "NutritionFacts.org, academic use",
        _beir("nfcorpus", 3633, 3237, {"train": 110_575, "dev": 11_385, "test": 12_334}),
    ),
    "scifact": PublicSet(_BEIR_TERMS + "CC BY-NC 2.0", _beir("scifact", 5183, 1109, {"train": 919, "test": 339})),
    "arguana": PublicSet(_BEIR_TERMS + "CC BY 4.0", _beir("arguana", 8674, 1406, {"test": 1406})),
    "fiqa": PublicSet(
        _BEIR_TERMS + "challenge data, none stated",
        _beir("fiqa", 57_638, 6648, {"train": 14_166, "dev": 1238, "test": 1706}),
    ),
    "quora": PublicSet(
        _BEIR_TERMS + "Quora's, non-commercial", _beir("quora", 522_931, 15_000, {"dev": 7626, "test": 15_675})
    ),
    "scidocs": PublicSet(_BEIR_TERMS + "GPL 3.0", _beir("scidocs", 25_657, 1000, {"test": 4928})),
    "trec-covid": PublicSet(
        _BEIR_TERMS + "CORD-19 licence, research", _beir("trec-covid", 171_332, 50, {"test": None})
    ),
}
