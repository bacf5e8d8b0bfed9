"""A filter means in Milvus what it means everywhere."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pymilvus", reason="needs pymilvus: pip install '.[scale]'")

from index.documents import Document
from index.filters import parse_filter
from index.milvus_rows import BOUNDS, KEY, TERMS, row_of, schema
from index.milvus_server import OPTIONS, Server
from index.milvus_terms import _in_order, expression, terms_of
from tests.index.test_filters import BOOK, FILTERS, METADATA
from tests.standin import ACCESS, StandIn

HOSTILE = ["'", '"', "\\", '"] or true or terms in ["', "{x}", "%", "ü", "a\nb", "𝄞", "\ue000", " ", ""]
NUMBERS = [0, -1, 1.5, -1.5, 2**53, 2**53 + 1, float(2**53), 10**30, -(10**30), 1e300, 5e-324, -5e-324, 2**63, 0.1]

VALUES = st.one_of(
    st.sampled_from(HOSTILE),
    st.sampled_from(NUMBERS),
    st.booleans(),
    st.none(),
    st.floats(allow_nan=False, allow_infinity=False),
)
ROWS = st.dictionaries(st.sampled_from(["a", "b", "'", '"]']), VALUES | st.lists(VALUES, max_size=3), max_size=3)


@pytest.fixture(scope="module")
def server(milvus: StandIn):
    with Server(milvus.address(), ACCESS) as server:
        yield server


def selected(server: Server, rows: list[dict[str, Any]], values: list[dict[str, Any]]) -> list[list[bool]]:
    """Of each filter, which rows Milvus lets through."""
    name = server.address.name
    client = server._client
    if client.has_collection(name, **OPTIONS):
        client.drop_collection(name, **OPTIONS)
    client.create_collection(name, schema=schema(2), consistency_level="Strong", **OPTIONS)
    wanted = client.prepare_index_params()
    wanted.add_index("vector", index_type="FLAT", metric_type="IP")
    client.create_index(name, wanted, **OPTIONS)
    client.load_collection(name, **OPTIONS)
    made = [row_of(Document(f"d{number}", "x", row), np.array([1, 0], np.float32)) for number, row in enumerate(rows)]
    if made:
        client.insert(name, made, **OPTIONS)
    answers = []
    for value in values:
        written = expression(parse_filter(value), TERMS, BOUNDS)
        if isinstance(written, bool):
            answers.append([written] * len(rows))
            continue
        found = {row[KEY] for row in client.query(name, filter=written, output_fields=[KEY], limit=1000, **OPTIONS)}
        answers.append([row[KEY] in found for row in made])
    return answers


@settings(max_examples=25)
@given(rows=st.lists(METADATA, max_size=6), values=st.lists(FILTERS, min_size=4, max_size=12))
def test_milvus_lets_through_what_the_reference_does(server: Server, rows: list, values: list) -> None:
    expected = [[parse_filter(value).matches(row) for row in rows] for value in values]
    assert selected(server, rows, values) == expected


LIMITS = VALUES.filter(lambda value: isinstance(value, str) or type(value) in (int, float))
HOSTILE_FILTERS = st.builds(
    lambda path, operand: {path: operand},
    st.sampled_from(["a", "b", "'", '"]', 'a"] > 1 or bounds["a']),
    VALUES
    | st.builds(lambda name, value: {name: value}, st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), LIMITS)
    | st.builds(lambda value: {"$not": {"$lt": value}}, LIMITS)
    | st.builds(lambda values: {"$in": values}, st.lists(VALUES, max_size=3)),
)


@settings(max_examples=25)
@given(rows=st.lists(ROWS, max_size=6), values=st.lists(HOSTILE_FILTERS, min_size=4, max_size=12))
def test_no_character_and_no_number_confuses_it(server: Server, rows: list, values: list) -> None:
    expected = [[parse_filter(value).matches(row) for row in rows] for value in values]
    assert selected(server, rows, values) == expected


PLAIN = ["", "'", '"', "a\\", "\ue000", "𝄞", 0, -1.5, 2**53 + 1, float(2**53), -(10**30), True, None]
OPERATORS = [
    *({name: value} for name in ("$eq", "$ne") for value in PLAIN),
    *({name: [value, "other"]} for name in ("$in", "$nin") for value in PLAIN),
    *({name: value} for name in ("$gt", "$gte", "$lt", "$lte") for value in PLAIN[:-2]),
    *({"$not": {name: value}} for name in ("$gt", "$gte", "$lt", "$lte") for value in PLAIN[:-2]),
    {"$exists": True},
    {"$exists": False},
    {"$gt": -2, "$lt": 1},
    {"$not": {"$gt": -2, "$lt": 1}},
]


def test_every_operator_with_every_kind_of_value(server: Server) -> None:
    rows = [{}, {"b": 0}, {"a": []}, {"a": {}}, {"a": [-3, "é"]}, {"a": {"c": 1}}, *({"a": value} for value in PLAIN)]
    values = [{"a": operator} for operator in OPERATORS]
    for value, found in zip(values, selected(server, rows, values), strict=True):
        assert found == [parse_filter(value).matches(row) for row in rows], value


@given(value=FILTERS | HOSTILE_FILTERS)
def test_nothing_that_a_caller_wrote_is_in_an_expression(value: dict[str, Any]) -> None:
    written = expression(parse_filter(value), "T", "B")
    if isinstance(written, str):
        rest = re.sub(r'array_contains_any\(T, \["[\w-]{16}"(, "[\w-]{16}")*\]\)', "X", written)
        rest = re.sub(r'B\["[\w-]{16}[01]"\] (<|<=|>|>=) "[\w.~-]*"', "X", rest)
        assert re.fullmatch(r"(X|\(|\)| and | or |not )+", rest)


SOME = st.one_of(st.integers(), st.integers(-(10**400), 10**400), st.floats(allow_nan=False, allow_infinity=False))


@given(left=SOME, right=SOME | st.sampled_from(NUMBERS))
def test_numbers_are_written_in_their_order(left: float, right: float) -> None:
    one, other = _in_order(left), _in_order(right)
    assert (one < other, one == other) == (left < right, left == right)


@given(left=st.text(), right=st.text())
def test_strings_are_written_in_their_order(left: str, right: str) -> None:
    one, other = _in_order(left), _in_order(right)
    assert (one < other, one == other) == (left < right, left == right)
    shorter = _in_order(left), _in_order(left + right)
    assert (shorter[0] < shorter[1]) == (right != "")


def test_what_a_document_brings() -> None:
    brought = terms_of({"a": [1, 2.0, "x"], "b": {"c": None}})
    assert len(brought.terms) == 11  # a: itself, list, three values, two kinds; b and b.c: themselves and their values
    assert len(brought.bounds) == 4
    assert terms_of({}).terms == []
    assert len(terms_of(BOOK).terms) == len(set(terms_of(BOOK).terms))
