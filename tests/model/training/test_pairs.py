import gzip
import json
import math
import random
from pathlib import Path

import pytest

from model.training.data_recipe import SILVER, DataRecipe, PairSet
from model.training.pairs import HeldOut, Pair, PairFileError, TrainingData, read_pairs
from model.training.provenance import restricted
from model.training.recipes import DistillationRecipe, RecipeError, SilverRecipe, TeacherRecipe, read_recipe
from tests.model.training.tiny_training import LEAK, training_data

STS = PairSet(file="set/train.tsv", range=(0, 5), terms="")
NLI = PairSet(file="set/train.tsv", labels={"entailment": 1.0, "neutral": 0.5}, terms="")
RECIPES = Path(__file__).parents[3] / "scripts" / "recipes"


def write(root: Path, lines: list[str], name: str = "set/train.tsv") -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("\n".join(["sentence1\tsentence2\tscore", *lines]) + "\n")


def test_rows_have_ids_and_targets(tmp_path: Path) -> None:
    write(tmp_path, ['a "b\tc\t2.5', "d\te\t5"])
    assert read_pairs(tmp_path, STS) == [
        Pair("set/train:1", 'a "b', "c", 0.5),
        Pair("set/train:2", "d", "e", 1.0),
    ]


def test_labels_and_limit(tmp_path: Path) -> None:
    write(tmp_path, ["a\tb\tneutral", "c\td\tentailment"])
    assert [pair.gold for pair in read_pairs(tmp_path, NLI)] == [0.5, 1.0]
    assert len(read_pairs(tmp_path, NLI.model_copy(update={"limit": 1}))) == 1


def test_classes_are_numbered_and_an_unlabelled_score_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, ["a\tb\tneutral", "c\td\tentailment"])
    classes = PairSet(file="set/train.tsv", classes=["entailment", "neutral"], terms="")
    assert [pair.gold for pair in read_pairs(tmp_path, classes)] == [1.0, 0.0]
    unlabelled = PairSet(file="set/train.tsv", unlabelled=True, terms="")
    assert all(math.isnan(pair.gold) for pair in read_pairs(tmp_path, unlabelled))
    assert (classes.outputs, STS.outputs, unlabelled.outputs) == (2, 1, None)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        ({"labels": {"yes": 5.0, "no": 0.0}}, r"gold in 0..1, not for {'yes': 5.0}"),
        ({"labels": {"yes": float("nan")}}, r"gold in 0..1, not for {'yes': nan}"),
        ({"range": (5, 5)}, "a range from 5 to 5 has no scores in it"),
    ],
)
def test_scores_are_read_as_gold_between_0_and_1(read: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PairSet(file="set/train.tsv", terms="", **read)


def test_a_left_text_is_in_one_part_of_its_file(tmp_path: Path) -> None:
    write(tmp_path, [f"question {row // 2}{'?' * (row % 2)}\tanswer {row}\t1" for row in range(400)])
    parts = [read_pairs(tmp_path, STS.model_copy(update={"part": part})) for part in ((0.0, 0.7), (0.7, 1.0))]
    assert sorted(int(pair.id.split(":")[1]) for part in parts for pair in part) == list(range(1, 401))
    assert 230 < len(parts[0]) < 330
    held_out = HeldOut([])
    held_out.add(parts[1])
    assert held_out.without(parts[0]) == parts[0]  # no question of one is in the other, in whatever spelling


def test_what_is_judged_on_is_held_out_though_nothing_names_it(tmp_path: Path) -> None:
    write(tmp_path, ["a\tb\t1", "c\td\t2", "E!\tf\t3", "g\tD.\t4", "h\ti\t5"])
    write(tmp_path, ["c\tx\t1"], "dev.tsv")
    write(tmp_path, ["e\td\t1"], "test.tsv")
    sets = {"train": STS, **{split: STS.model_copy(update={"file": f"{split}.tsv"}) for split in ("dev", "test")}}
    recipe = DataRecipe(sets={"train": sets["train"]}, dev=sets["dev"], test=sets["test"], held_out=[])
    assert [pair.left for pair in TrainingData(tmp_path, recipe).pairs("train")] == ["a", "h"]


def test_gzip_reads_the_same(tmp_path: Path) -> None:
    write(tmp_path, ["a\tb\t1"])
    plain = (tmp_path / "set/train.tsv").read_bytes()
    (tmp_path / "set/train.tsv.gz").write_bytes(gzip.compress(plain))
    zipped = STS.model_copy(update={"file": "set/train.tsv.gz"})
    assert read_pairs(tmp_path, zipped) == read_pairs(tmp_path, STS)


def test_a_mark_at_the_beginning_of_a_file_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, ["a\tb\t1"])
    plain = (tmp_path / "set/train.tsv").read_bytes()
    without = read_pairs(tmp_path, STS)
    (tmp_path / "set/train.tsv").write_bytes(b"\xef\xbb\xbf" + plain)
    assert read_pairs(tmp_path, STS) == without
    (tmp_path / "texts.txt").write_bytes(b"\xef\xbb\xbfone\ntwo\n")
    facts = {"sets": {}, "texts": {"plain": {"file": "texts.txt", "terms": ""}}, "dev": STS, "test": STS}
    assert TrainingData(tmp_path, DataRecipe.model_validate(facts)).texts("plain") == ["one", "two"]


@pytest.mark.parametrize(
    ("lines", "pair_set", "message"),
    [
        (["a\tb\thigh"], STS, r"row 1: score 'high' is not mapped"),
        (["a\tb\tneutral", "a\tb\t-"], NLI, r"row 2: score '-' is not mapped"),
        (["a\tb\t5", "a\tb\t5.01"], STS, r"set/train\.tsv, row 2: score '5.01' is not within 0 to 5"),
        (["a\tb\t-1"], STS, r"row 1: score '-1' is not within 0 to 5"),
        (["a\tb\tnan"], STS, r"row 1: score 'nan' is not within 0 to 5"),
        (["a\tb"], STS, r"train\.tsv:2: fewer columns"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, lines: list[str], pair_set: PairSet, message: str) -> None:
    write(tmp_path, lines)
    with pytest.raises(PairFileError, match=message):
        read_pairs(tmp_path, pair_set)


def test_silver_pairs_have_no_gold_though_their_file_has_cosines(tmp_path: Path) -> None:
    for split in ("dev", "test"):
        write(tmp_path, ["c\td\t1"], f"{split}.tsv")
    write(tmp_path, ["a\tb\t-0.25"], "silver.tsv")
    dev, test = (STS.model_copy(update={"file": f"{split}.tsv"}) for split in ("dev", "test"))
    data = TrainingData(tmp_path, DataRecipe(sets={}, dev=dev, test=test), tmp_path / "silver.tsv")
    (pair,) = data.pairs(SILVER)
    assert (pair.id, pair.left, pair.right) == ("silver:1", "a", "b")
    assert math.isnan(pair.gold)


def test_a_missing_file_or_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(PairFileError, match=r"set/train\.tsv"):
        read_pairs(tmp_path, STS)
    (tmp_path / "set").mkdir()
    (tmp_path / "set/train.tsv").write_text("sentence1\tscore\na\t1\n")
    with pytest.raises(PairFileError, match=r"lacks .'sentence2'"):
        read_pairs(tmp_path, STS)


def test_a_column_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/train.tsv").write_text("sentence1\tsentence2\tscore\tscore\na\tb\t1\t0.5\n")
    with pytest.raises(PairFileError, match=r"set/train\.tsv: the header names \['score'\] more than once"):
        read_pairs(tmp_path, STS)


def test_held_out_sentences_are_found_under_another_spelling(tmp_path: Path) -> None:
    write(tmp_path, ["A man plays.\tX y\t1"], "dev.tsv")
    held_out = HeldOut.read(tmp_path, ["dev.tsv"])
    kept = Pair("3", "another", "pair", 1)
    pairs = [Pair("1", "a MAN plays", "new", 1), Pair("2", "new", "x, y!", 1), kept]
    assert held_out.without(pairs) == [kept]


def test_a_pair_sets_sentences_are_texts_too_each_once_and_none_held_out(pair_files: Path) -> None:
    data = training_data(pair_files)
    texts = data.texts("train")
    assert len(texts) == len(set(texts))
    assert set(texts) == {text for pair in data.pairs("train") for text in (pair.left, pair.right)}
    assert LEAK not in texts


def texts_of(root: Path, content: str, **facts: object) -> list[str]:
    (root / "plain.jsonl").write_text(content)
    sets = {split: STS.model_copy(update={"file": "set/train.tsv"}) for split in ("dev", "test")}
    texts = {"plain": {"file": "plain.jsonl", "terms": "", **facts}}
    recipe = DataRecipe.model_validate({"sets": {}, "texts": texts, **sets})
    return TrainingData(root, recipe).texts("plain")


def test_texts_of_json_lines_are_cut_into_passages(tmp_path: Path) -> None:
    write(tmp_path, ["held\tout\t1"])
    rows = [{"title": "One", "text": "two three four five"}, {"text": "six"}, {"title": "", "text": "Held!"}]
    content = "\n".join(map(json.dumps, rows))
    assert texts_of(tmp_path, content) == ["One two three four five", "six"]
    assert texts_of(tmp_path, content, words=2) == ["One two", "three four", "six"]  # "five" is left over
    assert texts_of(tmp_path, content, words=2, max_words=1) == ["six"]


@pytest.mark.parametrize("line", ["no json", '"a string"', '{"title": "alone"}'])
def test_json_lines_that_hold_no_text_are_named(tmp_path: Path, line: str) -> None:
    write(tmp_path, ["held\tout\t1"])
    with pytest.raises(PairFileError, match=r"plain\.jsonl: every line must be an object with a text"):
        texts_of(tmp_path, line)


def test_the_digest_knows_where_a_pair_is_split() -> None:
    assert Pair("1", "a b", "c", 0).digest != Pair("1", "a", "b c", 0).digest
    assert Pair("1", "a", "b", 0).digest != Pair("1", "b", "a", 0).digest
    assert Pair("1", "a", "b", 0).digest == Pair("2", "a", "b", 1).digest


def test_every_shipped_recipe_reads_and_holds_out_the_evaluation_splits() -> None:
    kinds = {"teacher": TeacherRecipe, "served_teacher": TeacherRecipe, "silver": SilverRecipe}
    kinds |= {"open/teacher": TeacherRecipe, "open/silver": SilverRecipe}
    files = [*RECIPES.glob("*.toml"), *RECIPES.glob("open/*.toml")]
    names = {str(path.relative_to(RECIPES).with_suffix("")) for path in files} - {"data", "long_data", "evaluation"}
    assert names > kinds.keys()
    for name in names:
        data = read_recipe(RECIPES / f"{name}.toml", kinds.get(name, DistillationRecipe)).data
        assert {data.dev.file, data.test.file} < set(data.held_out), name


@pytest.mark.parametrize("name", ["six_layer", "three_layer", "static", "quadratic", "linear_six_layer", "linear_long"])
def test_a_student_holds_out_what_was_not_labelled(name: str) -> None:
    """The logits are made by another recipe: a pair that this one drops has none, and training on it is refused."""
    labelled = read_recipe(RECIPES / "served_teacher.toml", TeacherRecipe).data
    student = read_recipe(RECIPES / f"{name}.toml", DistillationRecipe).data
    assert {*labelled.held_out} <= {*student.held_out}


def test_the_open_recipes_train_on_nothing_whose_terms_restrict_its_use() -> None:
    teacher = read_recipe(RECIPES / "open/teacher.toml", TeacherRecipe)
    silver = read_recipe(RECIPES / "open/silver.toml", SilverRecipe)
    student = read_recipe(RECIPES / "open/student.toml", DistillationRecipe)
    stages = [stage for network in (*teacher.members, student.network) for stage in network.stages]
    sets = {*silver.sets, *(name for stage in stages for name in stage.sets)} - {SILVER}
    texts = {*silver.texts, *(name for stage in stages for name in stage.texts)}
    assert sets
    assert texts
    described = [student.data.sets[name].described for name in sets]
    assert restricted(described + [student.data.texts[name].described for name in texts]) == []
    folders = {network.init for network in (*teacher.members, student.network)}
    assert folders == {"sentence-transformers/all-MiniLM-L6-v2"}, "another model may have learned from other sets"


def test_no_set_or_text_of_the_shipped_recipes_holds_an_evaluation_sentence(data: Path) -> None:
    recipe = read_recipe(RECIPES / "teacher.toml", TeacherRecipe).data
    given = TrainingData(data, recipe)
    held_out = HeldOut.read(data, recipe.held_out)
    for name in recipe.sets:
        assert len(given.pairs(name)) > 1000
        assert held_out.without(given.pairs(name)) == given.pairs(name)
    for name in recipe.texts:
        assert held_out.without_texts(given.texts(name)) == given.texts(name) != []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nonsense", "recipe.toml: "),
        ("data = 'none.toml'", r"none\.toml: .*No such file"),
        ("name = 'x'\nsurprise = 1", "surprise: Extra inputs"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "recipe.toml").write_text(content)
    with pytest.raises(RecipeError, match=message):
        read_recipe(tmp_path / "recipe.toml", TeacherRecipe)


def test_what_a_recipe_asks_in_vain_is_refused() -> None:
    from tests.model.training.tiny_training import DATA, network, student_recipe

    with pytest.raises(ValueError, match=r"teacher_only names .'elsewhere'., which are not among its sets"):
        student_recipe(stage={"teacher_only": ["elsewhere"]})
    with pytest.raises(ValueError, match="a cross-encoder embeds nothing"):
        student_recipe("cross-encoder", keep_initial=0.5)
    for facts in ({"distillation": 0.5}, {"stage": {"teacher_only": ["train"]}}):
        members = [network("bi-encoder", **facts)]
        with pytest.raises(ValueError, match="nothing teaches it"):
            TeacherRecipe.model_validate({"name": "x", "data": DATA, "members": members})


@pytest.mark.parametrize(
    ("head", "stage", "message"),
    [
        ({"kind": "quadratic", "outputs": 3}, {}, "several outputs and directed need an mlp head, not quadratic"),
        ({"outputs": 3}, {}, "tiny-distilled answers 3 logits, but train asks for 1"),
        ({"outputs": 3}, {"losses": {"cosent": 1.0}}, "a head of several outputs has none"),
        ({"directed": True}, {"both_orders": True}, "not for a directed head"),
        ({"directed": True}, {}, "is for tasks .dse tasks run., not to serve"),
    ],
)
def test_a_head_is_used_for_what_it_can(head: dict, stage: dict, message: str) -> None:
    from tests.model.training.tiny_training import student_recipe

    with pytest.raises(ValueError, match=message):
        student_recipe(head=head, stage=stage)


def test_a_stage_with_an_unknown_set_is_refused() -> None:
    from tests.model.training.tiny_training import student_recipe

    with pytest.raises(ValueError, match=r"uses .'nowhere'., which the data does not define"):
        student_recipe(stage={"sets": ["nowhere"]})


def test_shuffling_is_the_only_difference_between_epochs() -> None:
    from model.training.objectives import Example
    from model.training.trainer import Material, batches_of, steps_of
    from tests.model.training.tiny_training import student_recipe

    examples = [Example(Pair(str(n), "a" * random.Random(n).randrange(1, 9), "b", 0.0), 0.0, 0.0) for n in range(50)]
    stage = student_recipe(stage={"epochs": 2, "batch": 8, "both_orders": True}).network.stages[0]
    batches = [batch.examples for batch in batches_of(Material(examples), stage, seed=1)]
    assert len(batches) == steps_of(Material(examples), stage) == 26
    first, second = (sorted(e.pair.id for b in batches[half : half + 13] for e in b) for half in (0, 13))
    assert first == second == sorted([str(n) for n in range(50)] * 2)
    assert [[e.pair.id for e in b] for b in batches[:13]] != [[e.pair.id for e in b] for b in batches[13:]]
    assert [batch.examples for batch in batches_of(Material(examples), stage, seed=1)] == batches


def test_candidates_of_one_query_meet_in_a_batch_where_they_are_compared() -> None:
    from model.training.objectives import Example
    from model.training.trainer import Material, batches_of, steps_of
    from tests.model.training.tiny_training import student_recipe

    pairs = [Pair(str(n), f"query {n % 50}", "a" * (n % 9 + 1), 0.0) for n in range(400)]
    material = Material([Example(pair, 0.0, 0.0) for pair in pairs])
    stage = student_recipe(stage={"epochs": 1, "batch": 32, "losses": {"margin-mse": 1.0}}).network.stages[0]
    batches = [batch.examples for batch in batches_of(material, stage, seed=1)]
    assert len(batches) == steps_of(material, stage) == 13
    assert sorted(int(e.pair.id) for batch in batches for e in batch) == list(range(400))
    alone = sum(sum(e.pair.left == other.pair.left for other in batch) == 1 for batch in batches for e in batch)
    assert alone <= 2 * len(batches)
    assert [batch.examples for batch in batches_of(material, stage, seed=2)] != batches
