"""Which documents does a filter let through? A MongoDB-like language over metadata, and its plain evaluation."""

import json
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

MAX_LEVELS = 16
"""How deep ``$and``, ``$or`` and ``$not`` may be nested."""

MAX_PARTS = 1000
"""Conditions and values that one filter may hold."""

MAX_PATH = 1000
"""Characters of a field's path."""

Scalar = str | int | float | bool | None
Rank = tuple[int, Any]

NULL, BOOLEAN, NUMBER, STRING, CONTAINER = range(5)
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_LEAVES = ("$eq", "$ne", "$in", "$nin", *_ORDERS, "$exists", "$not")
_JOINS = ("$and", "$or", "$not")


class FilterError(ValueError):
    """A filter that cannot be used; ``place`` is where in it: ``$or.1.year.$gt``, or "" for the whole."""

    def __init__(self, place: tuple[str, ...], problem: str) -> None:
        self.place = ".".join(_shown(part) for part in place)
        super().__init__(f"{self.place}: {problem}" if place else problem)


def rank(value: Any) -> Rank:
    """Where a value stands among others: by kind, then within it. Equal values have equal ranks.

    A boolean is no number, 1 is 1.0, strings stand in the order of their code points, and a list or an object is
    not told from another.
    """
    if isinstance(value, str):
        return STRING, value
    if isinstance(value, bool):
        return BOOLEAN, value
    if isinstance(value, int | float):
        return NUMBER, value
    return (NULL, 0) if value is None else (CONTAINER, 0)


def values_at(metadata: Mapping[str, Any], path: str) -> Iterator[Any]:
    """Every value that a dotted path leads to. A list is such a value, and so is each element of it.

    On the way, a list stands for the objects in it; a dot may also be part of a name.
    """
    for name in _leading(metadata, path):
        value = metadata[name]
        elements = value if isinstance(value, list) else []
        if name == path:
            yield value
            yield from elements
        else:
            for holder in elements or [value]:
                if isinstance(holder, dict):
                    yield from values_at(holder, path[len(name) + 1 :])


def _leading(metadata: Mapping[str, Any], path: str) -> Iterator[str]:
    """The names that are the path, or that it goes on from with a dot; in time that the shorter of both decides."""
    if path.count(".") >= len(metadata):
        yield from (name for name in metadata if path == name or path.startswith(f"{name}."))
        return
    end = path.find(".")
    while end >= 0:
        if path[:end] in metadata:
            yield path[:end]
        end = path.find(".", end + 1)
    if path in metadata:
        yield path


class Condition(Protocol):
    """One part of a filter."""

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a document with this metadata is let through."""
        ...


@dataclass(frozen=True)
class OneOf:
    """Some value at the path is one of these; where the path leads nowhere, the value is null."""

    path: str
    values: tuple[Scalar, ...]

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a document with this metadata is let through."""
        found = [rank(value) for value in values_at(metadata, self.path)] or [rank(None)]
        return not self.ranks.isdisjoint(found)

    @cached_property
    def ranks(self) -> frozenset[Rank]:
        """Of the values."""
        return frozenset(rank(value) for value in self.values)


@dataclass(frozen=True)
class Compares:
    """Some value at the path is of the operand's kind, and so ordered to it."""

    path: str
    order: str
    operand: str | int | float

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a document with this metadata is let through."""
        kind, _ = rank(self.operand)
        holds = _ORDERS[self.order]
        return any(rank(value)[0] == kind and holds(value, self.operand) for value in values_at(metadata, self.path))


@dataclass(frozen=True)
class Exists:
    """The path leads to some value, be it null."""

    path: str

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a document with this metadata is let through."""
        return any(True for _ in values_at(metadata, self.path))


@dataclass(frozen=True)
class AllOf:
    """Every part holds."""

    parts: tuple[Condition, ...]

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a document with this metadata is let through."""
        return all(part.matches(metadata) for part in self.parts)


@dataclass(frozen=True)
class AnyOf:
    """Some part holds."""

    parts: tuple[Condition, ...]

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a document with this metadata is let through."""
        return any(part.matches(metadata) for part in self.parts)


@dataclass(frozen=True)
class Not:
    """The part does not hold."""

    part: Condition

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a document with this metadata is let through."""
        return not self.part.matches(metadata)


@dataclass(frozen=True)
class Filter:
    """What :func:`parse_filter` understood. Two filters are equal if their JSON is, whatever the order of its keys."""

    canonical: str
    condition: Condition = field(compare=False, repr=False)

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a document with this metadata is let through: the reference for every faster way."""
        return self.condition.matches(metadata)


def parse_filter(value: Any) -> Filter:
    """Read a filter from its JSON value; docs/index.md describes the language.

    Raises:
        FilterError: not a filter; the message names the place in it.
    """
    condition = _Parser().conditions(value, (), 1)
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return Filter(canonical, condition)


class _Parser:
    """Reads one filter, counting its parts."""

    def __init__(self) -> None:
        self._parts = 0

    def conditions(self, value: Any, place: tuple[str, ...], level: int) -> Condition:
        """An object of fields, ``$and``, ``$or`` and ``$not``, all of which must hold."""
        if level > MAX_LEVELS:
            raise FilterError(place, f"nested more than {MAX_LEVELS} levels deep")
        if not isinstance(value, dict):
            raise FilterError(place, f'is {_kind(value)}; give an object such as {{"lang": "en"}}')
        if not value:
            self._count(place)  # it lets everything through, which is work as well
        parts = []
        for name, operand in value.items():
            here = (*place, name)
            if name in _JOINS:
                parts.append(self._join(name, operand, here, level))
            elif name.startswith("$"):
                hint = "write it below a field" if name in _LEAVES else f"there are {', '.join(_JOINS)}"
                raise FilterError(here, f"no operator that joins conditions; {hint}")
            else:
                parts.append(self._field(name, operand, here, level))
        return AllOf(tuple(parts))

    def _join(self, name: str, operand: Any, place: tuple[str, ...], level: int) -> Condition:
        self._count(place)
        if name == "$not":
            return Not(self.conditions(operand, place, level + 1))
        if not isinstance(operand, list) or not operand:
            raise FilterError(place, "give a list of at least one condition")
        parts = [self.conditions(part, (*place, str(number)), level + 1) for number, part in enumerate(operand)]
        return (AllOf if name == "$and" else AnyOf)(tuple(parts))

    def _field(self, path: str, value: Any, place: tuple[str, ...], level: int) -> Condition:
        if len(path) > MAX_PATH:
            raise FilterError(place[:-1], f"names a field of {len(path)} characters; the limit is {MAX_PATH}")
        if not isinstance(value, dict):
            return OneOf(path, (self._scalar(value, place),))
        if level > MAX_LEVELS:
            raise FilterError(place, f"nested more than {MAX_LEVELS} levels deep")
        if not value:
            raise FilterError(place, 'is an empty object; give a value, or an operator such as {"$exists": true}')
        return AllOf(tuple(self._leaf(path, name, value[name], (*place, name), level) for name in value))

    def _leaf(self, path: str, name: str, operand: Any, place: tuple[str, ...], level: int) -> Condition:
        if name in _ORDERS:
            return self._compares(path, name, operand, place)
        match name:
            case "$eq":
                return OneOf(path, (self._scalar(operand, place),))
            case "$in":
                return OneOf(path, self._scalars(operand, place))
            case "$ne" | "$nin":
                return Not(self._leaf(path, {"$ne": "$eq", "$nin": "$in"}[name], operand, place, level))
            case "$exists":
                self._count(place)
                if not isinstance(operand, bool):
                    raise FilterError(place, f"is {_kind(operand)}; give true or false")
                return Exists(path) if operand else Not(Exists(path))
            case "$not":
                self._count(place)
                if not isinstance(operand, dict):
                    raise FilterError(place, f"is {_kind(operand)}; give an object of operators, or use $ne")
                return Not(self._field(path, operand, place, level + 1))
        if name.startswith("$"):
            raise FilterError(place, f"no such operator; there are {', '.join(_LEAVES)}")
        raise FilterError(place, 'a field inside another is written with a dot: {"author.name": "Ada"}')

    def _compares(self, path: str, order: str, operand: Any, place: tuple[str, ...]) -> Condition:
        limit = self._scalar(operand, place)
        if limit is None or isinstance(limit, bool):
            raise FilterError(place, f"is {_kind(limit)}; only numbers and strings have an order")
        return Compares(path, order, limit)

    def _scalars(self, operand: Any, place: tuple[str, ...]) -> tuple[Scalar, ...]:
        self._count(place)
        if not isinstance(operand, list):
            raise FilterError(place, f"is {_kind(operand)}; give a list of values")
        return tuple(self._scalar(value, (*place, str(number))) for number, value in enumerate(operand))

    def _scalar(self, value: Any, place: tuple[str, ...]) -> Scalar:
        self._count(place)
        if isinstance(value, float) and not math.isfinite(value):
            raise FilterError(place, "is no number that JSON knows")
        if value is None or isinstance(value, str | int | float):
            return value
        hint = "to match one of several values use $in" if isinstance(value, list) else "write inner fields with a dot"
        raise FilterError(place, f"is {_kind(value)}; give a string, a number, true, false or null ({hint})")

    def _count(self, place: tuple[str, ...]) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise FilterError(place, f"the filter holds more than {MAX_PARTS} conditions and values")


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}.get(
        type(value), "a number"
    )


def _shown(part: str) -> str:
    """A name of a filter as a message may hold it: short, and of characters that can be sent."""
    return part[:50].encode("utf-8", "backslashreplace").decode()
