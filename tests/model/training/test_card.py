"""What a model card says of the data a bundle was made from."""

from dataclasses import replace

from model.bundle import BundleManifest
from model.head import Calibration
from model.training.card import network_card
from model.training.quality import Correlation
from model.training.recipes import DistillationRecipe
from model.training.signal import Member, Signal
from tests.model.training.tiny_training import DATA, EXPORT, network, pair_set

FIGURES = {"score": {"pearson": 87.654, "spearman": 86.5, "calibration_error": 0.0123}}
MANIFEST = BundleManifest.model_validate(
    {
        "name": "tiny", "kind": "encoder", "task": "a test", "dims": 32, "max_tokens": 48, "pooling": "mean",
        "head": "mlp", "calibration": {}, "licence": "apache-2.0", "lineage": ["a test"], "files": {},
        "quality": {"dev": {"int8": FIGURES}, "test": {"int8": FIGURES}, "int8_loss": 0.25},
    }
)  # fmt: skip
SIGNAL = Signal(
    "signal",
    (Member("bi", "bi-encoder", "d", 0.0, 1.0, Correlation(88.1, 87.2)),),
    Calibration(1.0, 0.0),
    Correlation(89.3, 88.4),
    48,
    ("`gold.tsv`: terms of the gold",),
)


def test_a_card_names_every_source_once_with_its_terms() -> None:
    """Of a pair set, a stage may take the sentences alone."""
    stage = {"teacher_only": ["train"], "texts": ["plain", "other", "train"], "regression": 2.0}
    facts = {
        "data": DATA
        | {
            "sets": {"train": pair_set("train"), "other": pair_set("other")},
            "texts": {"plain": {"file": "plain.txt", "terms": "terms of the texts"}},
        },
        "network": network("bi-encoder", layers=[1], keep_initial=0.25, stage=stage),
        "export": EXPORT,
    }
    card = network_card(MANIFEST, DistillationRecipe.model_validate(facts), SIGNAL)
    for line in (
        "- `train.tsv`: made in a test (its labels are not used: the teacher scores the pairs)",
        "- `other.tsv`: made in a test (its texts alone)",
        "- `plain.txt`: terms of the texts (its texts alone)",
        "- `gold.tsv`: terms of the gold",
        "| test | int8 | score | 87.65 | 86.50 | 0.012 |",
        "- `bi`, a bi-encoder (STS-B dev: P 88.10, S 87.20)",
    ):
        assert card.count(line) == 1, line
    assert card.count("`train.tsv`") == 1
    assert "commercial" not in card
    for fact in ("layers 1 of it", "Then 25% of `", "regression 2", "0.25 points of Spearman"):
        assert fact in card


def test_a_card_names_the_files_whose_sentences_it_did_not_learn_from() -> None:
    """And those alone: of other sets, it may have."""
    facts = {"data": DATA | {"held_out": ["apart.tsv", "dev.tsv"]}, "network": network("bi-encoder"), "export": EXPORT}
    card = network_card(MANIFEST, DistillationRecipe.model_validate(facts), SIGNAL)
    assert "`dev.tsv`, `test.tsv`, `apart.tsv`. Other sets may" in card


def test_a_card_says_of_a_table_that_it_is_one() -> None:
    for body, said in (("static", 1), ("transformer", 0)):
        facts = {"data": DATA, "network": network("bi-encoder", body=body), "export": EXPORT}
        card = network_card(MANIFEST, DistillationRecipe.model_validate(facts), SIGNAL)
        assert card.count("no order of words") == said


def test_a_card_names_the_sets_that_not_every_product_may_learn_from() -> None:
    trained_on = ["`a.tsv`: CC BY 4.0", "`b.tsv`: no terms stated", "`c.tsv`, 0 to 0.5: MSR parts for research only"]
    facts = {"data": DATA, "network": network("bi-encoder"), "export": EXPORT}
    manifest = MANIFEST.model_copy(update={"trained_on": trained_on})
    card = network_card(manifest, DistillationRecipe.model_validate(facts), SIGNAL)
    assert "Before commercial use look at the terms of `b.tsv`, `c.tsv`, 0 to 0.5: " in card
    _, told, rest = card.partition("What it starts from, or is drawn to, was trained on these as well:")
    assert told
    assert [line for line in rest.splitlines() if line.startswith("- `")] == [f"- {one}" for one in trained_on]


def test_a_card_says_of_a_served_teacher_how_good_it_is() -> None:
    """Its own card says the rest."""
    served = replace(SIGNAL, members=(replace(SIGNAL.members[0], name="signal", kind="ensemble"),))
    facts = {"data": DATA, "network": network("bi-encoder"), "export": EXPORT}
    card = network_card(MANIFEST, DistillationRecipe.model_validate(facts), served)
    assert "On STS-B dev it has P 89.30, S 88.40." in card
    assert "standardised" not in card
    assert "- `gold.tsv`: terms of the gold" in card
