import heapq
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

import index.columns as columns_module
from index.columns import MetadataColumns, write_columns
from index.filters import MAX_LEVELS, MAX_PARTS, MAX_PATH, FilterError, parse_filter, values_at
from index.manifest import IndexFault

BOOK = {
    "lang": "en",
    "year": 1984,
    "rating": 4.5,
    "free": True,
    "shelf": None,
    "tags": ["novel", "classic", 7],
    "author": {"name": "Ada", "born": {"year": 1815}},
    "editions": [{"year": 1990, "isbn": "x"}, {"year": 2001}, "loose"],
    "empty": [],
    "grid": [[1, 2], [3]],
    "a.b": 1,
    "a": {"b": 2},
}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, True),
        ({"lang": "en"}, True),
        ({"lang": "EN"}, False),
        ({"lang": {"$eq": "en"}, "year": 1984}, True),
        ({"lang": "en", "year": 1985}, False),
        ({"year": 1984.0}, True),
        ({"year": "1984"}, False),
        ({"free": 1}, False),
        ({"free": True}, True),
        ({"year": {"$gt": 1983, "$lte": 1984}}, True),
        ({"year": {"$gt": 1984}}, False),
        ({"year": {"$gte": 1984}}, True),
        ({"year": {"$lt": 1984}}, False),
        ({"year": {"$lt": "2000"}}, False),
        ({"year": {"$gt": 1983.5}}, True),
        ({"rating": {"$lt": 5}}, True),
        ({"lang": {"$gt": "eM", "$lt": "eo"}}, True),
        ({"lang": {"$gt": 0}}, False),
        ({"free": {"$lt": 2}}, False),
        ({"year": {"$in": [1, 1984, "x"]}}, True),
        ({"year": {"$in": []}}, False),
        ({"year": {"$nin": [1984]}}, False),
        ({"year": {"$nin": []}}, True),
        ({"year": {"$ne": 1984}}, False),
        ({"nowhere": {"$ne": 1984}}, True),
        ({"shelf": None}, True),
        ({"nowhere": None}, True),
        ({"lang": None}, False),
        ({"author.nowhere": None}, True),
        ({"shelf": {"$exists": True}}, True),
        ({"nowhere": {"$exists": True}}, False),
        ({"nowhere": {"$exists": False}}, True),
        ({"author": {"$exists": True}}, True),
        ({"author": {"$in": [None, "Ada"]}}, False),
        ({"tags": "classic"}, True),
        ({"tags": 7}, True),
        ({"tags": {"$gt": 5, "$lt": 3}}, False),
        ({"tags": {"$ne": "classic"}}, False),
        ({"empty": None}, False),
        ({"empty": {"$exists": True}}, True),
        ({"author.name": "Ada"}, True),
        ({"author.born.year": {"$lt": 1900}}, True),
        ({"editions.year": 2001}, True),
        ({"editions.year": {"$gt": 2001}}, False),
        ({"editions.year": {"$gt": 2000, "$lt": 1991}}, True),  # each by an edition of its own
        ({"editions": "loose"}, True),
        ({"editions.isbn": None}, False),
        ({"grid": 1}, False),
        ({"a.b": 1}, True),
        ({"a.b": 2}, True),
        ({"$and": [{"lang": "en"}, {"year": 1984}]}, True),
        ({"$and": [{"lang": "en"}, {"year": 1}]}, False),
        ({"$or": [{"lang": "de"}, {"year": 1984}]}, True),
        ({"$or": [{"lang": "de"}, {"year": 1}]}, False),
        ({"$not": {"lang": "de"}}, True),
        ({"$not": {}}, False),
        ({"year": {"$not": {"$gt": 1983, "$lt": 1990}}}, False),
        ({"year": {"$not": {"$gt": 1984}}}, True),
        ({"lang": "en", "$or": [{"free": False}, {"$not": {"tags": "new"}}]}, True),
    ],
)
def test_what_a_filter_means(tmp_path, value: dict[str, Any], expected: bool) -> None:
    wanted = parse_filter(value)
    assert wanted.matches(BOOK) is expected
    write_columns(tmp_path / "columns", [{}, BOOK])
    assert MetadataColumns.open(tmp_path / "columns").select(wanted).tolist() == [wanted.matches({}), expected]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "^is a list; give an object"),
        (None, "^is null; give an object"),
        ({"$gt": 3}, r"\$gt: no operator that joins conditions; write it below a field"),
        ({"$xor": []}, r"\$xor: no operator that joins conditions; there are \$and, \$or, \$not"),
        ({"year": {"$near": 3}}, r"year\.\$near: no such operator; there are \$eq, "),
        ({"year": {"$gt": 3, "from": 4}}, r"year\.from: a field inside another is written with a dot"),
        ({"year": {}}, "year: is an empty object"),
        ({"year": [1, 2]}, r"year: is a list; give a string.*use \$in"),
        ({"year": {"$in": 3}}, r"year\.\$in: is a number; give a list"),
        ({"year": {"$in": [1, {}]}}, r"year\.\$in\.1: is an object; give a string"),
        ({"year": {"$gt": None}}, r"year\.\$gt: is null; only numbers and strings have an order"),
        ({"year": {"$gt": True}}, r"year\.\$gt: is a boolean; only numbers"),
        ({"year": {"$lt": float("nan")}}, r"year\.\$lt: is no number that JSON knows"),
        ({"year": {"$exists": 1}}, r"year\.\$exists: is a number; give true or false"),
        ({"year": {"$not": 3}}, r"year\.\$not: is a number; give an object of operators"),
        ({"$or": [{"a": 1}, {"year": {"$gt": []}}]}, r"\$or\.1\.year\.\$gt: is a list"),
        ({"$or": []}, r"\$or: give a list of at least one condition"),
        ({"$and": {"a": 1}}, r"\$and: give a list of at least one condition"),
        ({"$not": [1]}, r"\$not: is a list; give an object"),
        ({"$or": [{}] * MAX_PARTS}, rf"\$or\.{MAX_PARTS - 1}: the filter holds more than 1000"),
        ({"a": {"$in": list(range(MAX_PARTS + 1))}}, rf"a\.\$in\.{MAX_PARTS - 1}: the filter holds more than 1000"),
        ({"x" * 99: {"\ud800": 1}}, rf"^{'x' * 50}\.\\ud800: a field"),
        ({"$not": {"a." * 500 + "a": 1}}, r"^\$not: names a field of 1001 characters; the limit is 1000"),
    ],
)
def test_a_filter_that_is_none_names_the_place(value: Any, message: str) -> None:
    with pytest.raises(FilterError, match=message) as refused:
        parse_filter(value)
    str(refused.value).encode()


class Counted(dict[str, Any]):
    """Metadata that counts how often it is looked into."""

    looks = 0

    def __contains__(self, name: object) -> bool:
        self.looks += 1
        return super().__contains__(name)


def test_a_long_path_costs_no_more_than_the_names_that_are_there() -> None:
    metadata = Counted({"a": {"b": 1}, "other": 2})
    assert list(values_at(metadata, "a." * 400 + "a")) == []
    assert metadata.looks <= 2
    assert list(values_at(metadata, "a.b")) == [1]
    assert list(values_at({"a.b": 1, "a": {"b": [2, 3]}, "c": 4}, "a.b")) == [[2, 3], 2, 3, 1]
    assert (
        list(values_at({"a.": {"": 5}}, "a.."))
        == list(values_at({"a.": {"": 5}, "b": 1, "c": 2, "d": 3}, "a.."))
        == [5]
    )
    assert MAX_PATH == 1000


@pytest.mark.parametrize("inside", [lambda deep: {"$not": deep}, lambda deep: {"$or": [deep]}])
def test_a_filter_may_be_nested_so_deep(inside) -> None:
    value: dict[str, Any] = {"a": 1}
    for _ in range(MAX_LEVELS - 1):
        value = inside(value)
    assert parse_filter(value).matches({"a": 1}) is (MAX_LEVELS % 2 == 1 or "$or" in value)
    with pytest.raises(FilterError, match=f"nested more than {MAX_LEVELS} levels deep"):
        parse_filter(inside(value))


def test_a_field_may_be_denied_so_often() -> None:
    value: dict[str, Any] = {"$gt": 1}
    for _ in range(5000):
        value = {"$not": value}
    with pytest.raises(FilterError, match=f"nested more than {MAX_LEVELS} levels deep"):
        parse_filter({"a": value})


def test_filters_are_equal_by_what_they_say() -> None:
    left, right = {"a": 1, "b": {"$in": [1, 2]}}, {"b": {"$in": [1, 2]}, "a": 1}
    assert parse_filter(left) == parse_filter(right)
    assert len({parse_filter(left), parse_filter(right)}) == 1
    assert parse_filter({"a": 1}) != parse_filter({"a": True})


NAMES = st.sampled_from(["a", "b", "a", "b", "a.b", "", "é", "$"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2, 0.0, -0.0, 1.0, 0.5, 2**53, 2**53 + 1, 2.0**53, 10**400, -(10**400)]),
    st.sampled_from(["", "a", "b", "é", "\U0001f600", "\uffff", "0", "A"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
METADATA = st.dictionaries(NAMES, VALUES, max_size=4)
PATHS = st.sampled_from(["a", "b", "a", "b", "a.b", "a.a", "b.a", "a.b.a", "", "é", "a.", ".a", "a.é"])
LIMITS = SCALARS.filter(lambda value: value is not None and not isinstance(value, bool))
OPERATORS = st.one_of(
    st.builds(lambda name, value: {name: value}, st.sampled_from(["$eq", "$ne"]), SCALARS),
    st.builds(lambda name, value: {name: value}, st.sampled_from(["$in", "$nin"]), st.lists(SCALARS, max_size=4)),
    st.builds(lambda name, value: {name: value}, st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), LIMITS),
    st.builds(lambda value: {"$exists": value}, st.booleans()),
)
FIELDS = st.builds(
    lambda path, operand: {path: operand},
    PATHS,
    SCALARS | OPERATORS | st.builds(lambda a, b: a | b, OPERATORS, OPERATORS) | OPERATORS.map(lambda o: {"$not": o}),
)
FILTERS = st.recursive(
    FIELDS | st.just({}),
    lambda inner: st.one_of(
        st.builds(lambda left, right: left | right, inner, inner),
        st.builds(lambda name, parts: {name: parts}, st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1)),
        inner.map(lambda part: {"$not": part}),
    ),
    max_leaves=5,
)


@settings(max_examples=200)
@given(rows=st.lists(METADATA, max_size=8), values=st.lists(FILTERS, min_size=1, max_size=6))
def test_columns_select_what_the_reference_lets_through(tmp_path_factory, rows: list, values: list) -> None:
    path = tmp_path_factory.mktemp("columns") / "metadata.safetensors"
    write_columns(path, rows)
    columns = MetadataColumns.open(path)
    assert len(columns) == len(rows)
    for wanted in map(parse_filter, values):
        assert columns.select(wanted).tolist() == [wanted.matches(row) for row in rows]


def no_more_than(most: int, merge):
    def counted(*runs, key):
        assert len(runs) <= most
        return merge(*runs, key=key)

    return counted


@settings(max_examples=50)
@given(rows=st.lists(METADATA, max_size=20), size=st.integers(1, 1000), merged=st.integers(2, 4))
def test_the_bytes_do_not_depend_on_the_memory(tmp_path_factory, rows: list, size: int, merged: int) -> None:
    folder = tmp_path_factory.mktemp("columns")
    write_columns(folder / "whole", rows)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(columns_module, "RUN_BYTES", size)
        patched.setattr(columns_module, "RUNS_PER_MERGE", merged)
        patched.setattr(heapq, "merge", no_more_than(merged, heapq.merge))
        write_columns(folder / "runs", iter(rows))
    assert (folder / "runs").read_bytes() == (folder / "whole").read_bytes()
    assert {path.name for path in folder.iterdir()} == {"whole", "runs"}


def test_the_file_is_plain_safetensors(tmp_path) -> None:
    write_columns(tmp_path / "columns", [{"b": ["x", "x"]}, {"b": "x", "a": 1}])
    tensors = load_file(tmp_path / "columns")
    assert bytes(tensors["paths"]) == b"ab"
    assert bytes(tensors["values"]) == b'1"x"{}'
    assert tensors["paths.values"].tolist() == [0, 1, 3]
    assert tensors["values.rows"].tolist() == [0, 1, 3, 4]
    assert tensors["rows"].tolist() == [1, 0, 1, 0]


def test_what_no_filter_may_name_is_in_no_column(tmp_path) -> None:
    most = "x" * MAX_PATH
    rows: list[dict[str, Any]] = [
        {most: 1, most + "x": 1, "y" * 999: {"a": 1, "ab": 2}, "z" * 100_000: {"a": {"b": 1}}}
    ]
    write_columns(tmp_path / "columns", rows)
    assert bytes(load_file(tmp_path / "columns")["paths"]) == (most + "y" * 999).encode()
    columns = MetadataColumns.open(tmp_path / "columns")
    for value in ({most: 1}, {"y" * 999: {"$exists": True}}):
        assert columns.select(parse_filter(value)).tolist() == [parse_filter(value).matches(rows[0])] == [True]


def test_a_file_that_is_something_else_is_refused(tmp_path) -> None:
    path = tmp_path / "columns"
    write_columns(path, [{"a": n} for n in range(100)])
    whole = path.read_bytes()
    for content in (b"", b"short", b"\xff" * 100, whole[: len(whole) // 2], whole.replace(b"U32", b"F32", 1)):
        path.write_bytes(content)
        with pytest.raises(IndexFault, match="build the index again"):
            MetadataColumns.open(path)
    path.unlink()
    with pytest.raises(IndexFault, match="cannot be read: No such file"):
        MetadataColumns.open(path)


def test_many_rows_and_values(tmp_path) -> None:
    random = np.random.default_rng(0)
    numbers, words = random.integers(0, 5000, 20_000).tolist(), random.integers(0, 3, 20_000).tolist()
    rows = [{"n": n, "w": "xyz"[w], "both": [n, "xyz"[w]]} for n, w in zip(numbers, words, strict=True)]
    write_columns(tmp_path / "columns", rows)
    columns = MetadataColumns.open(tmp_path / "columns")
    for value in ({"n": {"$gte": 4000}, "w": "y"}, {"both": {"$in": [17, 18, "z"]}}, {"both": {"$ne": "x"}}):
        wanted = parse_filter(value)
        expected = np.array([wanted.matches(json.loads(json.dumps(row))) for row in rows])
        np.testing.assert_array_equal(columns.select(wanted), expected)
        assert 0 < expected.sum() < len(rows)
