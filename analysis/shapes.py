# SPDX-License-Identifier: Apache-2.0
"""Shape and dtype inference with symbolic dims, and shape arithmetic.

`infer_shapes` walks the model once (see `shape_walk`) and writes what it finds on the values of the IR:

- A dim is a number, a name the file declares, or a polynomial of such names (``2*N``, ``floor((H + 1)/2)``)
  as text; equal texts are equal sizes in every run.  An open dim of a value ``v`` of the main graph is
  named ``?v.axis``, so that copies of it are known to be equal; inside bodies and functions open dims stay
  unknown.
- Types that a file declares for intermediate values are not trusted where the operator has a schema: stale
  ones exist. Declared types of graph inputs, and of outputs of operators without a schema, are all there is
  to go by and are kept.
- Declared types of graph inputs and outputs are never changed; what was found for an output is in
  `refined_shape`.
- A value whose type is not the file's own carries ``meta[INFERRED]``, and `save` leaves it out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from ..graph_ir import INFERRED, Model, Node, Shape, TensorType, Value, gc_paused
from ..graph_ir.ops import label, walk_graphs
from ..graph_ir.wire import set_type
from . import expr
from .expr import Dim
from .node_view import DATA_TYPES, constant_data, objects
from .scope import Scope
from .shape_walk import REFUSED, Walker
from .value_types import TypeTable, ValueType

_MISFIT = "[ShapeInferenceError] "  # how onnx and onnxruntime begin to tell it

DATA = "tersor.data"
DIMS = "tersor.dims"
REFINED = "tersor.refined"


@dataclass(frozen=True)
class ShapeReport:
    """What an inference found out.

    Attributes:
        values: outputs of nodes, bodies and functions included.
        typed: how many have an element type (or are known not to be tensors).
        ranked: how many have a rank.
        static: how many have only numbers for dims.
        unranked: names of tensors whose rank is unknown.
        notes: (node, reason) where inference got no answer.
        contradicted: values whose declared type cannot be right.
    """

    values: int
    typed: int
    ranked: int
    static: int
    unranked: tuple[str, ...]
    notes: tuple[tuple[str, str], ...]
    contradicted: tuple[str, ...]


def infer_shapes(model: Model) -> ShapeReport:
    """Infer types and shapes of all values and write them on the IR; never raises on odd models.

    Args:
        model: nodes in topological order.
    """
    with gc_paused():
        walker = Walker(model)
        scope = Scope(model.graph.opset_imports, nameable=True)
        for value in model.graph.inputs:
            scope.types[value] = walker.table.of_value(value)
            walker.name_dims(value, scope)
        walker.walk(model.graph, scope)
        _visit_uncalled(walker, model)
        found = {**walker.calls.seen, **scope.types}
        return _write(walker, model, found, scope)


def misfit(model: Model, said: str) -> str:
    """What a runtime says when it refuses a model, and whose inputs do not fit together where it is that.

    Shapes are inferred for it, on the model itself.
    """
    if _MISFIT not in said:
        return said
    for node, reason in infer_shapes(model).notes:
        if reason.startswith(REFUSED) and _MISFIT in reason:
            shapes = reason.removeprefix(REFUSED).partition(f": {_MISFIT}")[0]
            return f"{said}; it is node {node!r} with inputs{shapes}"
    return said


def infer_node(node: Node, opsets: Mapping[str, int] | None = None) -> bool:
    """Give one new node's outputs their types and shapes, from the types recorded on its inputs.

    Args:
        node: a node without bodies, of the standard domain or another one onnx has schemas for.
        opsets: opset version by domain; by default the imports of the node's graph (give them inside bodies
        and functions).

    Returns:
        Whether every output has an element type and a rank now.
    """
    walker = Walker()
    if opsets is None:
        opsets = {} if node.graph is None else node.graph.opset_imports
    scope = Scope(opsets)
    for value in node.inputs:
        if value is not None and (value.type is not None or value.shape is not None):
            scope.types[value] = walker.table.of_value(value)
            contents = _contents(walker.table, value)
            if contents is not None:
                scope.data[value] = contents
    walker.visit(node, scope)
    for output in node.outputs:
        if output not in walker.taken_as_declared and not output.is_graph_output():
            _set(walker.table, output, scope.types[output])
            _set_data(walker.table, output, scope)
    found = [scope.types[output] for output in node.outputs]
    return all(t.other is not None or (t.elem != 0 and t.dims is not None) for t in found)


def symbolic_data(value: Value) -> tuple[int | str | None, ...] | None:
    """Contents of a small integer tensor of rank 0 or 1: constant, or as `infer_shapes` found them.

    Returns:
        One number, name or polynomial (as text) per element, None for an unknown element; None when nothing
        is known.
    """
    constant = constant_data(value)
    if constant is not None:
        return tuple(constant.ravel()) if constant.ndim <= 1 else None
    return cast("tuple[int | str | None, ...] | None", value.meta.data.get(DATA))


def refined_shape(value: Value) -> Shape | None:
    """The inferred shape of a graph output (or of any value), which may say more than the declared one."""
    found = cast("Shape | None", value.meta.data.get(REFINED))
    return found if found is not None else value.shape


def dims_of(value: Value) -> tuple[Dim, ...] | None:
    """The value's dims with polynomials as such; None when its rank is unknown."""
    shape = refined_shape(value)
    if shape is None:
        return None
    kept = cast("tuple[Dim, ...] | None", value.meta.data.get(DIMS))
    if kept is not None and len(kept) == len(shape):
        return kept
    return tuple(
        d if isinstance(d, int) else None if d.value is None else expr.symbol(d.value) for d in shape
    )


def _contents(table: TypeTable, value: Value) -> Any:
    if value.dtype not in DATA_TYPES:
        return None
    constant = constant_data(value)
    if constant is not None:
        return constant
    kept = cast("tuple[int | str | None, ...] | None", value.meta.data.get(DATA))
    rank = None if value.shape is None else len(value.shape)
    if kept is None or rank is None:
        return None
    items: list[Dim] = [table.name(item) if isinstance(item, str) else item for item in kept]
    return objects(items, [len(items)] if rank else [])


def _visit_uncalled(walker: Walker, model: Model) -> None:
    """Type what can be typed in functions that nothing calls."""
    for function in model.functions.values():
        if all(value in walker.calls.seen for value in function.outputs):
            continue
        scope = Scope(function.opset_imports, attrs=function.attributes)
        for value in function.inputs:
            scope.types[value] = walker.table.unknown
        walker.walk(function, scope)
        for value, known in scope.types.items():
            walker.calls.seen.setdefault(value, known)


def _write(walker: Walker, model: Model, found: Mapping[Value, ValueType], scope: Scope) -> ShapeReport:
    table = walker.table
    signature = {*model.graph.inputs, *model.graph.outputs}
    counts: Counter[str] = Counter()
    tally: Counter[ValueType] = Counter()
    declared_only = walker.taken_as_declared
    unranked: list[str] = []
    contradicted: list[str] = []
    for graph in walk_graphs(model):
        borders = {*graph.inputs, *graph.outputs}
        for value in borders:
            _refine_border(table, value, found.get(value, table.unknown), value in signature)
        for value in [output for node in graph for output in node.outputs]:
            known = found.get(value, table.unknown)
            tally[known] += 1
            if known.dims is None and known.other is None and value.name:
                unranked.append(value.name)
            meta = cast("dict[str, Any]", value.meta.data)
            if value in scope.data or DATA in meta:
                _set_data(table, value, scope)
            if value in declared_only:
                continue
            if (value.type is not None or value.shape is not None) and INFERRED not in meta:
                declared = table.of_value(value)
                if _contradicts(declared, known):
                    contradicted.append(value.name or "")
                if declared is known:
                    continue
            if value not in borders:
                _set(table, value, known)
    for known, number in tally.items():
        _count(counts, known, number)
    notes = dict.fromkeys((label(node), reason) for node, reason in walker.notes)
    sums = (counts["values"], counts["typed"], counts["ranked"], counts["static"])
    return ShapeReport(*sums, tuple(unranked), tuple(notes), tuple(contradicted))


def _count(counts: Counter[str], known: ValueType, number: int) -> None:
    counts["values"] += number
    counts["typed"] += number * (known.elem != 0 or known.other is not None)
    if known.dims is not None:
        counts["ranked"] += number
        counts["static"] += number * known.static


def _contradicts(declared: ValueType, known: ValueType) -> bool:
    if declared.elem and known.elem and declared.elem != known.elem:
        return True
    if declared.dims is None or known.dims is None:
        return False
    if len(declared.dims) != len(known.dims):
        return True
    pairs = zip(declared.dims, known.dims, strict=True)
    return any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)


def _refine_border(table: TypeTable, value: Value, known: ValueType, signature: bool) -> None:
    """Note what was found for a graph's input or output; fill in a body's, where the file says nothing."""
    value.meta.pop(REFINED, None)
    if known.dims is not None:
        value.meta[REFINED] = _shape(table, value, known.dims)
    if not signature and (INFERRED in value.meta or (value.type is None and value.shape is None)):
        # Saved with the body, so without names of ours.
        dims = None if known.dims is None else tuple(d if isinstance(d, int) else None for d in known.dims)
        _set(table, value, table.tensor(known.elem, dims) if known.other is None else known)


def _shape(table: TypeTable, value: Value, dims: tuple[Dim, ...]) -> Shape:
    shape, composed = table.shape(dims)
    if composed:
        value.meta[DIMS] = dims
    else:
        value.meta.data.pop(DIMS, None)
    return shape


def _set(table: TypeTable, value: Value, known: ValueType) -> None:
    """Write a type on a value and mark it as ours; an element type that was not found stays as it was."""
    value.meta[INFERRED] = True
    if known.other is not None:
        set_type(value, table.proto(known))
        return
    if known.elem:
        value.type = TensorType(table.elem(known.elem))
    value.shape = None if known.dims is None else _shape(table, value, known.dims)


def _set_data(table: TypeTable, value: Value, scope: Scope) -> None:
    contents = scope.data.get(value)
    if contents is not None and contents.ndim <= 1 and constant_data(value) is None:
        items: list[Dim] = list(contents.ravel())
        value.meta[DATA] = tuple(table.text(i) if isinstance(i, expr.Expr) else i for i in items)
    else:
        value.meta.data.pop(DATA, None)
