"""Which documents does a filter let through, where Milvus has to tell? Terms of metadata, and a filter in those terms.

Milvus compares what lies at a JSON path its own way: it takes 1 for true, knows no path through a list of objects,
and what "missing" means has changed between its versions. So a document brings what its filters will ask: one *term*
for every path and every value at it, and for every path the least and the greatest number and string. A filter then
asks for terms and compares bounds, both of which every version does alike, and means exactly what
:meth:`index.filters.Filter.matches` means.

Terms are digests, and bounds are written in sixty-four characters of this module's choosing. Nothing that a caller
wrote, neither a path nor a value, is ever part of an expression.
"""

import math
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b
from typing import Any

from index.columns import entries
from index.filters import (
    CONTAINER,
    NUMBER,
    STRING,
    AllOf,
    AnyOf,
    Compares,
    Condition,
    Exists,
    Filter,
    Not,
    OneOf,
    Rank,
    rank,
)

TERM_BYTES = 12
"""Of a digest: nobody finds two values of one, and as text it takes sixteen characters."""

TERM_CHARACTERS = TERM_BYTES * 4 // 3
_KINDS = {NUMBER: "n", STRING: "s"}
_LEAST, _GREATEST = "0", "1"  # which bound, as the last character of its key

_ORDERED = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz",
)
"""From base64's alphabet to one whose characters stand in the order of what they mean."""

_LENGTH_DIGITS = 8
_COMPLEMENT = str.maketrans("0123456789abcdef.", "fedcba9876543210~")
_AFTER_ALL = "~"


@dataclass(frozen=True)
class Terms:
    """What a document brings for filters."""

    terms: list[str]
    """Of every value at every path, and of every path; each once, in order."""
    bounds: dict[str, str]
    """By path and kind, the least and the greatest value; in characters that stand in the order of the values."""


def terms_of(metadata: Mapping[str, Any]) -> Terms:
    """What filters may ask of some metadata."""
    terms: set[str] = set()
    least: dict[tuple[str, int], Any] = {}
    greatest: dict[tuple[str, int], Any] = {}
    for path, value in entries(metadata):
        standing = rank(value)
        terms.add(_path_term(path))
        terms.add(_value_term(path, standing))
        kind, ordered = standing
        if kind in _KINDS:
            key = path, kind
            terms.add(_kind_term(path, kind))
            least[key] = min(least.get(key, ordered), ordered)
            greatest[key] = max(greatest.get(key, ordered), ordered)
    bounds = {_bound_key(*key, _LEAST): _in_order(value) for key, value in least.items()}
    bounds |= {_bound_key(*key, _GREATEST): _in_order(value) for key, value in greatest.items()}
    return Terms(sorted(terms), bounds)


def expression(filter: Filter, terms: str, bounds: str) -> str | bool:
    """A filter as Milvus reads it; or True where it lets everything through, False where nothing.

    Args:
        filter: what is wanted.
        terms: the field (an array of strings) that holds :attr:`Terms.terms`.
        bounds: the field (JSON) that holds :attr:`Terms.bounds`.
    """
    return _Expression(terms, bounds).of(filter.condition, holds=True)


@dataclass(frozen=True)
class _Expression:
    """Writes conditions over two fields.

    ``not`` is carried down to single comparisons: a comparison with a bound that is not there is neither true nor
    false, and stays so when it is negated. Each is therefore joined with the term that says whether the bound is there.
    """

    terms: str
    bounds: str

    def of(self, condition: Condition, holds: bool) -> str | bool:
        """Where the condition holds; or, with ``holds`` False, where it does not."""
        match condition:
            case AllOf(parts) if holds:
                return _joined("and", (self.of(part, True) for part in parts), neutral=True)
            case AllOf(parts):
                return _joined("or", (self.of(part, False) for part in parts), neutral=False)
            case AnyOf(parts) if holds:
                return _joined("or", (self.of(part, True) for part in parts), neutral=False)
            case AnyOf(parts):
                return _joined("and", (self.of(part, False) for part in parts), neutral=True)
            case Not(part):
                return self.of(part, not holds)
            case Exists(path):
                return self._has([_path_term(path)], holds)
            case OneOf(path):
                return self._one_of(path, condition.ranks, holds)
            case Compares():
                return self._compared(condition, holds)
        raise TypeError(f"{condition!r} is no condition of index.filters")

    def _has(self, terms: Iterable[str], holds: bool) -> str:
        listed = ", ".join(f'"{term}"' for term in sorted(terms))
        return f"{'' if holds else 'not '}array_contains_any({self.terms}, [{listed}])"

    def _one_of(self, path: str, ranks: frozenset[Rank], holds: bool) -> str | bool:
        if not ranks:
            return not holds
        found = self._has([_value_term(path, standing) for standing in ranks], holds)
        if rank(None) not in ranks:
            return found
        nowhere = self._has([_path_term(path)], not holds)  # a path that leads nowhere leads to null
        return _joined("or" if holds else "and", [found, nowhere], neutral=not holds)

    def _compared(self, condition: Compares, holds: bool) -> str | bool:
        """Some value is above a limit if the greatest is; none is, if the greatest is not or there is none."""
        (kind, limit), path = rank(condition.operand), condition.path
        which = _GREATEST if condition.order in ("$gt", "$gte") else _LEAST
        order = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}[condition.order]
        if not holds:
            order = {">": "<=", ">=": "<", "<": ">=", "<=": ">"}[order]
        there = self._has([_kind_term(path, kind)], holds)
        compared = f'{self.bounds}["{_bound_key(path, kind, which)}"] {order} "{_in_order(limit)}"'
        return _joined("and" if holds else "or", [there, compared], neutral=holds)


def _joined(word: str, parts: Iterable[str | bool], neutral: bool) -> str | bool:
    written: list[str] = []
    for part in parts:
        if isinstance(part, str):
            written.append(part)
        elif part is not neutral:
            return part
    if not written:
        return neutral
    return written[0] if len(written) == 1 else "(" + f" {word} ".join(written) + ")"


def _path_term(path: str) -> str:
    return _digest("path", path)


def _kind_term(path: str, kind: int) -> str:
    return _digest("kind", path, _KINDS[kind])


def _value_term(path: str, standing: Rank) -> str:
    kind, value = standing
    if kind == NUMBER:
        value = Fraction(value)  # 1 is 1.0
    return _digest("value", path, str(kind), "" if kind == CONTAINER else str(value))


def _bound_key(path: str, kind: int, which: str) -> str:
    return _digest("bound", path, _KINDS[kind]) + which


def _digest(*parts: str) -> str:
    """A digest of some texts, none of which can pass for part of its neighbour."""
    digest = blake2b(digest_size=TERM_BYTES)
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")  # a filter may name what no document can hold
        digest.update(len(content).to_bytes(8, "little") + content)
    return _in_alphabet(digest.digest())


def _in_order(value: str | int | float) -> str:
    """A string or a number in characters whose order is that of the values."""
    return _in_alphabet(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else _number_in_order(value)


def _in_alphabet(content: bytes) -> str:
    """Bytes in sixty-four characters that stand in the order of the bytes."""
    return b64encode(content).rstrip(b"=").translate(_ORDERED).decode()


def _number_in_order(value: int | float) -> str:
    """A number, exactly: how many hexadecimal digits its whole part has, those, and those of the rest.

    >>> numbers = [-(10**30), -1.5, -1, -0.75, 0, 2**-40, 0.5, 1, 1.5, 15.9, 16, 2**53, 2**53 + 1, 1e300]
    >>> sorted(numbers, key=_number_in_order) == numbers
    True
    """
    exact = abs(Fraction(value))
    whole = math.floor(exact)
    rest = exact - whole
    digits = f"{whole:x}" if whole else ""
    bits = rest.denominator.bit_length() - 1  # a power of two
    padded = -bits % 4 + bits
    tail = f"{(rest.numerator << (padded - bits)):0{padded // 4}x}".rstrip("0") if bits else ""
    text = f"{len(digits):0{_LENGTH_DIGITS}x}{digits}.{tail}"
    return "1" + text if value >= 0 else "0" + text.translate(_COMPLEMENT) + _AFTER_ALL
