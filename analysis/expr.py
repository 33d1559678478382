# SPDX-License-Identifier: Apache-2.0
"""Exact integer arithmetic on tensor dimensions: integer polynomials over named sizes.

A *dim* is an ``int``, an ``Expr`` (a polynomial with integer coefficients over atoms, never a plain number)
or ``None`` (unknown).  An atom is a named size, which is an integer >= 0, or ``floor(p / d)`` of a
polynomial with coefficients in ``[0, d)``, or ``min(p, m)`` of a polynomial that is never below zero and a
number above zero.  Every function returns ``None`` when the result cannot be written exactly, so equality of
two results that are not ``None`` is equality for every non-negative value of the names.

Division follows ONNX ``Div`` on integers (truncation towards zero); it is only resolved where truncation
and the result provably agree.  A division by an expression assumes that it is not zero, since the run would
fail otherwise.

Long because it is the arithmetic of one type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple, TypeAlias, Union

MAX_TERMS = 16  # longer polynomials are given up as unknown, which bounds the work per operation
MAX_DEGREE = 32  # so are those with more factors in a term
_LARGEST = 2**63  # so are numbers that int64 does not hold, which runtimes wrap


class FloorDiv(NamedTuple):
    """``floor(num / den)`` with ``den`` > 0 and every coefficient of ``num`` in ``[0, den)``, hence >= 0."""

    num: Expr
    den: int

    def __str__(self) -> str:
        return f"floor(({self.num})/{self.den})"


@dataclass(frozen=True)
class Capped:  # no tuple, which would be equal to a `FloorDiv` of the same numbers
    """``min(num, most)`` with ``num`` >= 0 and ``most`` > 0: what a slice leaves of ``most`` rows."""

    num: Expr
    most: int

    def __str__(self) -> str:
        return f"min({self.num}, {self.most})"


Atom: TypeAlias = str | FloorDiv | Capped
Monomial: TypeAlias = tuple[Atom, ...]
Dim: TypeAlias = Union[int, "Expr", None]
"""A size, a polynomial in named sizes, or unknown."""


class Expr:
    """An immutable polynomial with at least one atom, compared by value; ``str`` gives a canonical text."""

    __slots__ = ("_hash", "_text", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)
        self._text = " + ".join(_term_text(m, c) for m, c in terms).replace("+ -", "- ")

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Expr) and self.terms == other.terms)

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return self._text

    @property
    def name(self) -> str | None:
        """The name when this is one plain named size, else None."""
        (mono, coef), rest = self.terms[0], self.terms[1:]
        if not rest and coef == 1 and len(mono) == 1 and isinstance(mono[0], str):
            return mono[0]
        return None


def symbol(name: str) -> Expr:
    """The named size ``name``, an unknown integer >= 0."""
    return Expr((((name,), 1),))


def _term_text(mono: Monomial, coef: int) -> str:
    if not mono:
        return str(coef)
    factors = "*".join(str(atom) for atom in mono)
    return factors if coef == 1 else f"-{factors}" if coef == -1 else f"{coef}*{factors}"


def _order(item: tuple[Monomial, int]) -> tuple[int, list[str]]:
    return -len(item[0]), [str(atom) for atom in item[0]]


def _build(terms: Mapping[Monomial, int]) -> Dim:
    kept = [(m, c) for m, c in terms.items() if c]
    if not kept:
        return 0
    if any(not -_LARGEST <= c < _LARGEST for _, c in kept):
        return None
    if len(kept) == 1 and not kept[0][0]:
        return kept[0][1]
    return Expr(tuple(sorted(kept, key=_order))) if len(kept) <= MAX_TERMS else None


def _terms(value: int | Expr) -> tuple[tuple[Monomial, int], ...]:
    return (((), value),) if isinstance(value, int) else value.terms


def add(a: Dim, b: Dim) -> Dim:
    """``a + b``."""
    if a is None or b is None:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a + b if -_LARGEST <= a + b < _LARGEST else None
    total: dict[Monomial, int] = dict(_terms(a))
    for mono, coef in _terms(b):
        total[mono] = total.get(mono, 0) + coef
    return _build(total)


def mul(a: Dim, b: Dim) -> Dim:
    """``a * b``; zero times unknown is zero."""
    if a == 0 or b == 0:
        return 0
    if a is None or b is None:
        return None
    total: dict[Monomial, int] = {}
    for mono_a, coef_a in _terms(a):
        for mono_b, coef_b in _terms(b):
            if len(mono_a) + len(mono_b) > MAX_DEGREE:
                return None
            mono = tuple(sorted(mono_a + mono_b, key=str))
            total[mono] = total.get(mono, 0) + coef_a * coef_b
    return _build(total)


def neg(a: Dim) -> Dim:
    """``-a``."""
    return mul(a, -1)


def sub(a: Dim, b: Dim) -> Dim:
    """``a - b``."""
    return add(a, neg(b))


def total(values: Iterable[Dim]) -> Dim:
    """Sum of ``values``."""
    return reduce(add, values, 0)


def product(values: Iterable[Dim]) -> Dim:
    """Product of ``values``; a known zero makes it zero."""
    return reduce(mul, values, 1)


def is_nonneg(a: Dim) -> bool:
    """True when ``a`` >= 0 for every value of its names (a sufficient test).

    No negative coefficient will do; -c*floor(p/d) is first replaced by its lower bound -c*p/d,
    -c*min(p, m) by -c*p or -c*m.
    """
    if a is None or isinstance(a, int):
        return a is not None and a >= 0
    for mono, coef in a.terms:
        if coef < 0:
            if len(mono) != 1 or isinstance(mono[0], str):
                return False
            rest = add(a, Expr(((mono, -coef),)))
            if isinstance(mono[0], Capped):
                return any(is_nonneg(add(rest, mul(bound, coef))) for bound in _bounds(mono[0], -coef, a))
            return is_nonneg(add(mul(rest, mono[0].den), mul(mono[0].num, coef)))
    return True


def _bounds(atom: Capped, times: int, a: Expr) -> list[int | Expr]:
    """Of m and p in ``min(p, m)`` what terms of ``a`` may make up for; always trying both takes 2^n steps."""
    given, (lead, size) = dict(a.terms), atom.num.terms[0]
    bounds: list[int | Expr] = [atom.most] if given.get((), 0) >= times * atom.most else []
    return [*bounds, atom.num] if not bounds or given.get(lead, 0) >= times * size else bounds


def is_positive(a: Dim) -> bool:
    """True when ``a`` > 0 for every value of its names."""
    return a is not None and is_nonneg(sub(a, 1))


def floor_div(a: Dim, b: int) -> Dim:
    """``floor(a / b)`` for ``b`` > 0, exact for any sign of ``a``.

    With a = b*q + r, every coefficient of r in [0, b): floor(a/b) = q + floor(r/b).  Nested divisions join by
    floor((floor(p/d) + c)/b) = floor((p + c*d)/(b*d)) for an integer c.
    """
    if a is None or b <= 0:
        return None
    if isinstance(a, int):
        return a // b
    quotient = _build({m: c // b for m, c in a.terms})
    rest = _build({m: c % b for m, c in a.terms})
    if not isinstance(rest, Expr):
        return quotient
    atoms = [(m, c) for m, c in rest.terms if m]
    if len(atoms) == 1 and atoms[0][1] == 1 and len(atoms[0][0]) == 1:
        inner = atoms[0][0][0]
        if isinstance(inner, FloorDiv):
            constant = sum(c for m, c in rest.terms if not m)
            return add(quotient, floor_div(add(inner.num, constant * inner.den), b * inner.den))
    return add(quotient, Expr((((FloorDiv(rest, b),), 1),)))


def ceil_div(a: Dim, b: int) -> Dim:
    """``ceil(a / b)`` for ``b`` > 0."""
    return floor_div(add(a, b - 1), b)


def div(a: Dim, b: Dim) -> Dim:
    """ONNX integer division: ``a / b`` truncated towards zero."""
    if a is None or b is None or b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    exact = _exact_quotient(a, b)
    if exact is not None:
        return exact
    return floor_div(a, b) if isinstance(b, int) and b > 0 and is_nonneg(a) else None


def _exact_quotient(a: int | Expr, b: int | Expr) -> Dim:
    """The polynomial q with q*b == a, if there is one that is found from the leading terms; else None."""
    divisor = _terms(b)
    lead_mono, lead_coef = divisor[0]
    quotient: Dim = 0
    rest: Dim = a
    for _ in range(MAX_TERMS):
        if rest is None or rest == 0:
            return quotient if rest == 0 else None
        mono, coef = _terms(rest)[0]
        remaining = list(mono)
        for atom in lead_mono:
            if atom not in remaining:
                return None
            remaining.remove(atom)
        if coef % lead_coef:
            return None
        step = _build({tuple(remaining): coef // lead_coef})
        quotient = add(quotient, step)
        rest = sub(rest, mul(step, b))
    return None


def mod(a: Dim, b: Dim, *, fmod: bool = False) -> Dim:
    """ONNX ``Mod`` on integers: the sign follows ``b``, or ``a`` with ``fmod``."""
    if a is None or b is None or b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return sub(a, mul(b, div(a, b))) if fmod else a % b
    if _exact_quotient(a, b) is not None:
        return 0
    if isinstance(b, int) and b > 0 and (is_nonneg(a) or not fmod):
        return sub(a, mul(b, floor_div(a, b)))
    return None


def maximum(a: Dim, b: Dim) -> Dim:
    """The larger of two dims where the order is provable."""
    return neg(minimum(neg(a), neg(b)))


def minimum(a: Dim, b: Dim) -> Dim:
    """The smaller of two dims, where the order is provable or one is a number."""
    if a is None or b is None:
        return None
    if is_nonneg(sub(a, b)):
        return b
    if is_nonneg(sub(b, a)):
        return a
    num, most = (a, b) if isinstance(b, int) else (b, a)
    if isinstance(num, int) or not isinstance(most, int) or most < 1 or not is_nonneg(num):
        return None
    return Expr((((Capped(num, most),), 1),))


def is_capped(a: Dim, b: Dim) -> bool:
    """Whether ``a`` is ``min(b, m)`` for a number ``m`` > 0."""
    if not isinstance(a, Expr) or len(a.terms) != 1:
        return False
    (mono, coef), *_ = a.terms
    return coef == 1 and len(mono) == 1 and isinstance(mono[0], Capped) and mono[0].num == b


def equal(a: Dim, b: Dim) -> bool | None:
    """Whether ``a == b``: True or False when that holds for every value of the names, else None."""
    if a is None or b is None:
        return None
    if a == b:
        return True
    difference = sub(a, b)
    return False if is_positive(difference) or is_positive(neg(difference)) else None


def less(a: Dim, b: Dim) -> bool | None:
    """Whether ``a < b``: True or False when that holds for every value of the names, else None."""
    if is_positive(sub(b, a)):
        return True
    return False if is_nonneg(sub(a, b)) else None


def names(a: Dim) -> frozenset[str]:
    """The named sizes in ``a``."""
    if a is None or isinstance(a, int):
        return frozenset()
    found: set[str] = set()
    for mono, _ in a.terms:
        for atom in mono:
            found |= {atom} if isinstance(atom, str) else names(atom.num)
    return frozenset(found)


def evaluate(a: Dim, bindings: Mapping[str, int]) -> int | None:
    """The number ``a`` stands for under ``bindings``; None when a name is not bound or ``a`` is unknown."""
    if a is None or isinstance(a, int):
        return a
    result = 0
    for mono, coef in a.terms:
        term = coef
        for atom in mono:
            if isinstance(atom, str):
                size = bindings.get(atom)
            else:
                num = evaluate(atom.num, bindings)
                size = None if num is None else _of(atom, num)
            if size is None:
                return None
            term *= size
        result += term
    return result


def _of(atom: FloorDiv | Capped, num: int) -> int:
    return min(num, atom.most) if isinstance(atom, Capped) else num // atom.den
