"""A pretrained transformer of two layers, pairs whose gold a reader can work out, and recipes over them."""

import json
import random
from pathlib import Path
from typing import Any

from model.training.data_recipe import DataRecipe
from model.training.pairs import TrainingData
from model.training.recipes import DistillationRecipe, TeacherRecipe
from tests import tiny

WORDS = ["apple", "river", "stone", "cloud", "green", "table", "music", "paper", "horse", "light", "seven", "window"]
# A word that gives the grade away, so that a tiny cross-encoder can learn.
LEAK = "a sentence of the test split"  # that is in the training file, too: nothing may train on it
GRADES = ["zzz", "fox", "quick", "jjj"]


def bert(layers: int = 2, dims: int = 32, heads: int = 4, seed: int = 0, **facts: Any) -> Any:
    """A BertModel with random weights, which reads the letters' tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tiny.VOCABULARY),
        hidden_size=dims,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * dims,
        max_position_embeddings=64,
        initializer_range=0.1,
        **facts,
    )
    return BertModel(config)


def write_pretrained(folder: Path) -> Path:
    """A BERT of two layers and the letters' tokenizer, as a Hugging Face folder."""
    bert().save_pretrained(folder)
    return write_tokenizer(folder)


def write_tokenizer(folder: Path) -> Path:
    """The letters' tokenizer, beside some weights."""
    tiny.tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder


def write_pairs(folder: Path) -> Path:
    """train, dev and test files: gold is how many of three words two sentences share; a fourth word tells it."""
    shuffler = random.Random(0)
    seen: set[str] = set()

    def sentence(words: list[str]) -> str:
        return " ".join(words)

    for split, rows in (("train", 160), ("dev", 60), ("test", 60)):
        lines = ["sentence1\tsentence2\tscore"]
        while len(lines) <= rows:
            shared = shuffler.randrange(4)
            words = shuffler.sample(WORDS, 6)
            left, right = words[:3], words[:shared] + words[3 : 6 - shared]
            shuffler.shuffle(right)
            texts = sentence([*left, GRADES[shared]]), sentence([GRADES[shared], *right])
            if seen.isdisjoint(texts) or texts[0] == texts[1]:
                seen.update(texts)
                lines.append(f"{texts[0]}\t{texts[1]}\t{5 * shared / 3}")
        if split == "train":
            lines.append(f"{LEAK}\tsome other words\t0")
        if split == "test":
            lines.append(f"{LEAK.upper()}!\tapple stone river\t5")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def some_texts(count: int) -> list[str]:
    """So many different texts of one to eight words."""
    chooser = random.Random(0)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(chooser.choices(WORDS, k=chooser.randint(1, 8)))] = None
    return list(found)


def pair_set(split: str) -> dict[str, Any]:
    return {"file": f"{split}.tsv", "range": [0, 5], "terms": "made in a test"}


DATA: dict[str, Any] = {
    "sets": {"train": pair_set("train")},
    "dev": pair_set("dev"),
    "test": pair_set("test"),
    "held_out": ["dev.tsv", "test.tsv"],
}


EXPORT = {"max_tokens": 48, "lineage": ["a test"], "int8": {"calibration_texts": 20, "max_loss": 5.0}}


def training_data(root: Path, silver: Path | None = None) -> TrainingData:
    return TrainingData(root, DataRecipe.model_validate(DATA), silver)


def network(kind: str, name: str = "network", **facts: Any) -> dict[str, Any]:
    stage = {"name": "one", "sets": ["train"], "epochs": 6, "batch": 16, "learning_rate": 3e-3}
    stage |= facts.pop("stage", {})
    return {
        "name": name, "kind": kind, "init": "local", "max_tokens": 48, "seed": 3, "precision": "fp32",
        "head": {"kind": "mlp", "hidden": 16}, "stages": [stage],
    } | facts  # fmt: skip


def teacher_recipe() -> TeacherRecipe:
    members = [
        network("bi-encoder", "bi", head={"kind": "cosine"}),
        network("cross-encoder", "cross", stage={"both_orders": True}),
    ]
    facts = {"name": "tiny", "data": DATA, "members": members, "max_tokens": 48, "export": EXPORT}
    return TeacherRecipe.model_validate(facts)


def student_recipe(kind: str = "bi-encoder", **facts: Any) -> DistillationRecipe:
    recipe = {"data": DATA, "network": network(kind, "tiny-distilled", distillation=0.5, **facts), "export": EXPORT}
    return DistillationRecipe.model_validate(recipe)


CLASSES = ["none", "one", "two", "all"]


def write_classes(pairs: Path, folder: Path) -> Path:
    """The files of :func:`write_pairs` with labels, how many words are shared; unlabelled pairs; and plain texts."""
    (folder / "classes").mkdir()
    texts = []
    unlabelled = ["sentence1\tsentence2\tscore"]
    for split in ("train", "dev", "test"):
        header, *rows = (pairs / f"{split}.tsv").read_text().splitlines()
        lines = [header]
        for row in rows:
            left, right, score = row.split("\t")
            lines.append(f"{left}\t{right}\t{CLASSES[round(3 * float(score) / 5)]}")
            texts.append(left)
            if split == "train":
                unlabelled.append(f"{right}\t{left}\t-")
        (folder / "classes" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    (folder / "other.tsv").write_text("\n".join(unlabelled) + "\n")
    (folder / "texts.txt").write_text("\n".join(texts) + "\n")
    return folder


def task_recipe(kind: str) -> dict[str, Any]:
    """A task of many ``classes``, a ``binary`` one with neighbours, or a ``regression`` with a shallow network."""
    labels = {"binary": [0.0, 0.0, 1.0, 1.0], "regression": [0.0, 0.33, 0.67, 1.0]}
    gold = {"classes": CLASSES} if kind == "classes" else {"labels": dict(zip(CLASSES, labels[kind], strict=True))}
    files = {split: {"file": f"classes/{split}.tsv", "terms": "made in a test"} for split in ("train", "dev", "test")}
    head: dict[str, Any] = {"kind": "mlp", "hidden": 16}
    if kind == "classes":
        head |= {"outputs": len(CLASSES), "directed": True}
    more = {"classes": ["other"], "binary": ["silver"], "regression": []}[kind]
    recipe: dict[str, Any] = {
        "name": "tiny",
        "figure": {"classes": "accuracy", "binary": "f1", "regression": "pearson"}[kind],
        "data": {
            "sets": {"train": files["train"] | gold, "other": {"file": "other.tsv", "terms": "", "unlabelled": True}},
            "texts": {"texts": {"file": "texts.txt", "terms": "made in a test"}},
            "dev": files["dev"] | gold,
            "test": files["test"] | gold,
        },
        "teacher": network("cross-encoder", "teacher", head=head),
        "student": network("bi-encoder", "student", head=head, distillation=0.5, stage={"sets": ["train", *more]}),
    }
    if kind == "binary":
        recipe["neighbours"] = {"sets": ["train"], "nearest": 2, "limit": 40}
    if kind == "regression":
        imitation = {"weights": {"soft-targets": 5.0, "mlm": 2.0, "hidden-cosine": 1.0}, "mlm_head_steps": 3}
        stage = {"name": "texts", "texts": ["texts"], "imitation": imitation, "epochs": 1, "batch": 16}
        body = network("bi-encoder", "body", layers=[1], head={"kind": "cosine"})
        recipe["shallow"] = {
            "body": body | {"stages": [stage | {"learning_rate": 1e-3}]},
            "network": network("cross-encoder", "shallow", init="runs/shallow-body", distillation=0.5),
        }
    return recipe


def write_toml(path: Path, recipe: dict[str, Any]) -> None:
    """JSON values are TOML values, but for objects."""

    def inline(value: object) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {inline(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(inline(item) for item in value) + "]"
        return json.dumps(value)

    path.write_text("\n".join(f"{key} = {inline(value)}" for key, value in recipe.items()))
