# SPDX-License-Identifier: Apache-2.0
"""What axes of inputs are: sizes where they are free, and samples along axis 0 of stored arrays."""

from __future__ import annotations

from collections.abc import Iterable

from ..graph_ir import Model, Signature, signature_of
from ..graph_ir.ops import int_attr, is_op, label

FREE_SIZE = 64


def free_sizes(signature: Signature) -> dict[str, int]:
    """Sizes of free dimensions of inputs where no data tells: 1 of a first axis, `FREE_SIZE` of any other.

    Keys are symbols, of which each has one size, or `?input.axis`, as in `analysis.cost`. A symbol that is
    called a sum of others and of numbers is that sum: exporters name the length of a decoder's mask so, as in
    `past_length + 1`.
    """
    found: dict[str, int] = {}
    for name, _, dims in signature.inputs:
        for axis, dim in enumerate(dims or ()):
            if not isinstance(dim, int):
                found.setdefault(dim or f"?{name}.{axis}", FREE_SIZE if axis else 1)
    for name in [name for name in found if "+" in name]:
        terms = [term.strip() for term in name.split("+")]
        if all(term.isdecimal() or (term in found and "+" not in term) for term in terms):
            found[name] = sum(int(term) if term.isdecimal() else found[term] for term in terms)
    return found


def not_samples(model_inputs: Signature | Model) -> dict[str, str]:
    """Inputs whose axis 0 counts no samples, each with the reason, as far as that can be told.

    A recurrent layer takes it as time, or no output has that axis and one has another of its axes first.
    """
    if isinstance(model_inputs, Signature):
        signature, found = model_inputs, dict[str, str]()
    else:
        signature, names = signature_of(model_inputs), set(model_inputs.graph.inputs)
        found = {
            node.inputs[0].name or "": f"node {label(node)!r} ({node.op_type}) takes it as time"
            for node in model_inputs.graph
            if is_op(node, "LSTM", "GRU", "RNN")
            and node.inputs[0] in names
            and not int_attr(node, "layout", 0)
        }
    left = {dim for _, _, dims in signature.outputs for dim in dims or ()}
    for name, _, dims in signature.inputs:
        for output, _, others in signature.outputs:
            first = others[0] if others else None
            if dims and isinstance(first, str) and first in dims and dims[0] not in left:
                reason = f"axis 0 of output {output!r} is its axis {dims.index(first)}"
                found.setdefault(name, reason)
    return found


def cut_notes(signature: Signature, cuts: Iterable[tuple[str, int]], unlike: dict[str, str]) -> list[str]:
    """Notes on inputs whose arrays were cut along axis 0 into several samples, where that is worth a word.

    Args:
        signature: of the model.
        cuts: name of an input and rows of an array of its rank; there may be several for one input.
        unlike: see `not_samples`.
    """
    shapes = {name: dims or (None,) for name, _, dims in signature.inputs}
    rows, left = dict[str, int](), dict[str, int]()
    for name, count in cuts:
        first = shapes[name][0]
        taken = first if isinstance(first, int) else 1
        if count == taken or (taken == 1 and (first == 1 or name not in unlike)):
            continue
        rows[name] = rows.get(name, 0) + count
        left[name] = left.get(name, 0) + count % max(1, taken)
    return [_note(name, shapes[name], rows[name], left[name], unlike.get(name)) for name in rows]


def _note(name: str, dims: tuple[int | str | None, ...], rows: int, left: int, reason: str | None) -> str:
    taken = dims[0] if isinstance(dims[0], int) else 1
    what = f"the {rows} rows of data for input {name!r} were taken as samples of {taken} each"
    if left:
        what += f", and {left} of them left out, which fill none"
    if reason is None:
        return f"{what}: the model takes {taken} at once"
    whole = ", ".join(["samples", *("?" if d is None else str(d) for d in dims)])
    return f"{what}, but its axis 0 counts no samples: {reason}; store an array [{whole}]"
