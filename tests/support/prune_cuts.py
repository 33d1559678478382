# SPDX-License-Identifier: Apache-2.0
"""Cut models by masks written by hand, and by random plans, and compare the result with the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tersor.analysis.coupling import Coupling, couple
from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model, Value, fingerprint, signature_of, to_proto, to_text, verify
from tersor.graph_ir.ops import walk_nodes
from tersor.passes.base import Context
from tersor.passes.prune.apply import apply_masks, apply_plan
from tersor.passes.prune.plan import Cut, PrunePlan
from tests.support.numerics import Feed, feeds_for, run_double, run_onnxruntime
from tests.support.prune_oracle import oracle

Mask = NDArray[np.bool_]
# Of the largest output: sums of some hundred terms, in another order.
TOLERANCE, TOLERANCE_DOUBLE = 64 * 2.0**-23, 64 * 2.0**-40
ROUNDING_AT_MOST = 1e-2


def masks_of(model: Model, written: Mapping[str, str]) -> dict[tuple[Value, int], Mask]:
    """Masks by names: `{"w:0 b:0 y:1": "1101"}` keeps positions 0, 1 and 3 of three axes."""
    values = {v.name: v for n in walk_nodes(model) for v in (*n.inputs, *n.outputs) if v is not None}
    found: dict[tuple[Value, int], Mask] = {}
    for places, digits in written.items():
        for place in places.split():
            name, _, axis = place.rpartition(":")
            found[values[name], int(axis)] = np.array([d == "1" for d in digits])
    return found


def cut(model: Model, written: Mapping[str, str], *, compare: bool = True) -> str:
    """The model's text after masks written by hand; it computes what the oracle says.

    Args:
        model: edited in place.
        written: see `masks_of`; all axes must be named, of weights and of activations.
        compare: also run it.
    """
    infer_shapes(model)
    masks = masks_of(model, written)
    expected = to_proto(oracle(model, masks))
    assert apply_masks(model, masks, Context())
    if compare:
        assert_equal(expected, to_proto(model))
    return to_text(model)


def half(model: Model, coupling: Coupling, seed: int = 0) -> PrunePlan:
    """A plan that keeps a random half of each group's atoms, and one at least."""
    rng = np.random.default_rng(seed)
    cuts: list[Cut] = []
    for group in coupling.groups:
        kept = np.sort(rng.permutation(group.atoms)[: max(1, group.atoms // 2)])
        cuts.append(Cut(group.name, group.atoms, tuple(kept.tolist()), "drawn"))
    return PrunePlan(fingerprint(model), tuple(cuts))


def halve(model: Model, seed: int = 0, feeds: Feed | None = None) -> Coupling:
    """Apply `half`; the result is valid, keeps the signature, is smaller, and equals the oracle.

    Args:
        model: edited in place.
        seed: of the plan.
        feeds: to compare on; random ones by default.

    Returns:
        What could be removed from the model before.
    """
    coupling = couple(model)
    plan = half(model, coupling, seed)
    expected = to_proto(oracle(model, plan.masks(coupling)))
    signature, before = signature_of(model), parameters(model)
    assert apply_plan(model, plan, Context())
    verify(model, signature)
    after = to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    assert parameters(model) < before
    assert_equal(expected, after, feeds)
    return coupling


def assert_equal(expected: onnx.ModelProto, got: onnx.ModelProto, feeds: Feed | None = None) -> None:
    """Both compute the same in onnxruntime, up to rounding.

    Where a normalisation of nearly equal numbers makes rounding large, both must agree in float64.
    """
    feeds = feeds_for(expected) if feeds is None else feeds
    first, second = run_onnxruntime(expected, feeds), run_onnxruntime(got, feeds)
    assert first is not None
    assert second is not None
    assert [(a.dtype, a.shape) for a in first] == [(b.dtype, b.shape) for b in second]
    worst = max(map(_apart, first, second))
    if worst > TOLERANCE:
        assert worst < ROUNDING_AT_MOST
        assert max(map(_apart, run_double(expected, feeds), run_double(got, feeds))) < TOLERANCE_DOUBLE


def _apart(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The largest difference, relative to the largest output."""
    scale = float(np.max(np.abs(a), initial=0.0))
    return float(np.max(np.abs(a.astype(np.float64) - b), initial=0.0)) / (scale or 1.0)


def parameters(model: Model) -> int:
    """Elements of all initializers."""
    held = [value.const_value for value in model.graph.initializers.values()]
    return sum(tensor.size for tensor in held if tensor is not None)
