# SPDX-License-Identifier: Apache-2.0
"""Permutations of axes, as tuples: y = Transpose_p(x) has axis p[i] of x as its axis i."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import Node
from ...graph_ir.ops import has_reference_attribute, ints_attr, is_op, rank

Perm: TypeAlias = tuple[int, ...]


def perm_of(node: Node | None) -> Perm | None:
    """A Transpose's permutation; None for another operator, or when it cannot be told."""
    if node is None or not is_op(node, "Transpose") or has_reference_attribute(node):
        return None
    extent, given = rank(node.inputs[0]), ints_attr(node, "perm")
    if given is None:
        return None if extent is None else tuple(reversed(range(extent)))
    perm = tuple(given)
    fits = sorted(perm) == list(range(len(perm))) and extent in (None, len(perm))
    return perm if fits else None


def is_identity(p: Perm) -> bool:
    """Whether nothing moves."""
    return p == tuple(range(len(p)))


def inverse(p: Perm) -> Perm:
    """The q with Transpose_q(Transpose_p(x)) = x."""
    back = [0] * len(p)
    for i, axis in enumerate(p):
        back[axis] = i
    return tuple(back)


def then(p: Perm, q: Perm) -> Perm:
    """The r with Transpose_q(Transpose_p(x)) = Transpose_r(x)."""
    return tuple(p[i] for i in q)


def without(p: Perm, gone: Collection[int]) -> Perm:
    """What is left of p when these axes of its result are removed, and the ones they come from."""
    kept = [axis for i, axis in enumerate(p) if i not in gone]
    place = {axis: i for i, axis in enumerate(sorted(kept))}
    return tuple(place[axis] for axis in kept)


def extended(p: Perm, new: Collection[int]) -> Perm:
    """The p with axes added to its result at these places, from the same places of its source."""
    extent = len(p) + len(new)
    rest = [i for i in range(extent) if i not in new]
    result = list(range(extent))
    for i, axis in enumerate(p):
        result[rest[i]] = rest[axis]
    return tuple(result)


def back(p: Perm, items: Sequence[Any]) -> list[Any]:
    """What belongs to each axis of x, given what belongs to each axis of Transpose_p(x)."""
    return [items[i] for i in inverse(p)]


def back_array(p: Perm, array: NDArray[Any]) -> NDArray[Any]:
    """The c with Transpose_p(c) = the array broadcast to the rank of p by leading 1s."""
    padded: NDArray[Any] = np.reshape(array, (1,) * (len(p) - array.ndim) + array.shape)
    return np.ascontiguousarray(np.transpose(padded, inverse(p)))
