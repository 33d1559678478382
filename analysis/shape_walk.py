# SPDX-License-Identifier: Apache-2.0
"""The forward walk of shape inference: one node after the other, types and shape arithmetic side by side.

onnx's own inference is asked about each node alone (`onnx.shape_inference.infer_node_outputs`), with types
found so far and contents of small integer inputs, never with weights or declared types of inner values. Equal
questions are asked once. Where onnx leaves dims open, `shape_rules` fills them by polynomials of named dims.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from ..graph_ir import Attr, AttributeType, Function, Model, Node, Value, one_line
from ..graph_ir.ops import constant, constant_tensor
from ..graph_ir.wire import attribute_proto, tensor_form
from . import contrib_rules, shape_bodies, shape_data, shape_rules
from .node_view import DATA_TYPES, Data, NodeView, attr_key, constant_data
from .scope import Scope
from .value_types import TypeTable, ValueType, possible

if TYPE_CHECKING:
    import onnx
    from onnx.defs import OpSchema

# Shape arithmetic whose output *shape* does not hang on the contents of inputs, or is told by our rule alone.
_CONTENT_FREE = frozenset(shape_data.RULES) - {
    *("Squeeze", "Unsqueeze", "Reshape", "Split", "Expand", "Range", "ConstantOfShape"),
    *("ReduceSum", "ReduceProd", "ReduceMin", "ReduceMax"),
}
# Floating-point inputs that decide an output's shape.
_FLOAT_CONTENTS = {"Resize": (1, 2), "Upsample": (1,), "Range": (0, 1, 2), "MelWeightMatrix": (3, 4)}
_GRAPH_TYPES = (AttributeType.GRAPH, AttributeType.GRAPHS)
REFUSED = "onnx cannot infer it from"
_REFUSALS = (RuntimeError, ValueError, IndexError, TypeError)
_BODY_OPS = frozenset({"If", "Loop", "Scan"})

Contents: TypeAlias = tuple[tuple[int, tuple[int, ...], tuple[float, ...]], ...]
Answer: TypeAlias = tuple[tuple[ValueType, ...], "str | None"]


class Walker:
    """One inference over one model (or over single nodes, with ``model`` None)."""

    def __init__(self, model: Model | None = None) -> None:
        self.table = TypeTable()
        self.functions: Mapping[Any, Function] = {} if model is None else model.functions
        self.notes: list[tuple[Node, str]] = []
        self.taken_as_declared: set[Value] = set()
        self.calls = shape_bodies.Calls()
        self._answers: dict[Any, Answer] = {}
        self._schemas: dict[tuple[str, str, int], OpSchema | None] = {}

    # -- values -------------------------------------------------------------------------------------------

    def type_of(self, value: Value, scope: Scope) -> ValueType:
        """The type known for a value read in ``scope``; a constant's comes from its tensor."""
        found = scope.types.get(value)
        if found is None:
            tensor = value.const_value if value.is_initializer() else constant_tensor(value)
            if tensor is None:
                found = self.table.unknown
            else:
                elem, sizes = tensor_form(tensor)
                found = self.table.tensor(elem, sizes)
                if elem in DATA_TYPES and (data := constant_data(value)) is not None:
                    scope.data[value] = data
            scope.types[value] = found
        return found

    # -- nodes --------------------------------------------------------------------------------------------

    def walk(self, nodes: Iterable[Node], scope: Scope) -> None:
        """Type every node of a graph given in topological order, bodies included."""
        for node in nodes:
            self.visit(node, scope)

    def visit(self, node: Node, scope: Scope) -> None:
        """Type one node's outputs from what is known of its inputs."""
        inputs = node.inputs
        unknown = self.table.unknown
        known = scope.types.get
        types = tuple([unknown if v is None else known(v) or self.type_of(v, scope) for v in inputs])
        standard = node.domain in ("", "ai.onnx")
        function = self.functions.get(node.op_identifier()) if self.functions else None
        if function is not None:
            results = shape_bodies.call(self, node, function, types, scope)
        elif standard and node.op_type in _BODY_OPS:
            results = shape_bodies.visit(self, node, types, scope)
        elif standard and node.op_type == "Constant" and not inputs:
            results = self._constant(node, scope)
        else:
            results = self._ask(node, types, scope)
            if standard:
                self._refine(node, types, results, scope)
                return
        for output, known in zip(node.outputs, results, strict=False):
            scope.types[output] = self._named(output, known) if scope.nameable else known

    def note(self, node: Node, reason: str) -> None:
        """Record why a node's outputs stay unknown."""
        self.notes.append((node, reason))

    def _constant(self, node: Node, scope: Scope) -> tuple[ValueType, ...]:
        found = self.type_of(node.outputs[0], scope)
        return self._ask(node, (), scope) if found is self.table.unknown else (found,)

    def attributes(self, node: Node, scope: Scope) -> Mapping[str, Attr]:
        """The node's attributes, references to the function's attributes resolved (absent ones dropped)."""
        attrs = node.attributes.data
        if not attrs or not any(a.is_ref() for a in attrs.values()):
            return attrs
        resolved: dict[str, Attr] = {}
        for name, attr in attrs.items():
            if not attr.is_ref():
                resolved[name] = attr
            elif (given := scope.attrs.get(attr.ref_attr_name or "")) is not None:
                resolved[name] = Attr(name, given.type, given.value)
        return resolved

    def _refine(
        self, node: Node, types: tuple[ValueType, ...], results: tuple[ValueType, ...], scope: Scope
    ) -> None:
        """Fill open dims by rule, and follow shape arithmetic through the node."""
        op, outputs = node.op_type, node.outputs
        if len(results) == 1 and results[0].complete and op not in shape_data.RULES:
            scope.types[outputs[0]] = results[0]
            return
        rule = shape_rules.RULES.get(op)
        wants_dims = rule is not None and not all(r.complete for r in results)
        wants_data = op in shape_data.RULES and results[0].elem in DATA_TYPES
        data: list[Data | None] = []
        if wants_dims or wants_data:
            data = [None if v is None else scope.data.get(v) for v in node.inputs]
            wants_data = wants_data and (op in ("Shape", "Size") or any(d is not None for d in data))
        if wants_dims or wants_data:
            version = self._version(node, scope)
            attrs = self.attributes(node, scope)
            view = NodeView(op, version, types, data, attrs, node.inputs, len(outputs))
            if wants_dims and rule is not None:
                results = tuple(
                    self.table.meet(known, self.table.tensor(0, possible(dims)))
                    for known, dims in zip(results, (*rule(view), *[None] * len(results)), strict=False)
                )
            if wants_data:
                found = shape_data.evaluate_data(view, [r.elem for r in results])
                for output, contents in zip(outputs, found, strict=True):
                    if contents is not None:
                        scope.data[output] = contents
        for output, known in zip(outputs, results, strict=True):
            if known.static:
                scope.types[output] = known
                continue
            scope.types[output] = self._named(output, known) if scope.nameable else known
            if wants_data and (contents := scope.data.get(output)) is not None and known.dims is None:
                scope.types[output] = self.table.tensor(known.elem, tuple(contents.shape))

    def _named(self, value: Value, known: ValueType) -> ValueType:
        """The type with each open dim named after the value, so that copies of it are known to be equal."""
        if known.complete or known.dims is None or not value.name:
            return known
        dims = tuple(
            self.table.declared(f"?{value.name}.{axis}") if d is None else d
            for axis, d in enumerate(known.dims)
        )
        return self.table.tensor(known.elem, dims)

    def name_dims(self, value: Value, scope: Scope) -> None:
        """Name the open dims of a graph input."""
        scope.types[value] = self._named(value, self.type_of(value, scope))

    # -- onnx ---------------------------------------------------------------------------------------------

    def _version(self, node: Node, scope: Scope) -> int:
        if node.version is not None:
            return node.version
        domain = "" if node.domain == "ai.onnx" else node.domain
        return scope.opsets.get(domain, scope.opsets.get("ai.onnx", 0) if not domain else 0)

    def _schema(self, node: Node, version: int) -> OpSchema | None:
        key = (node.domain, node.op_type, version)
        if key not in self._schemas:
            from onnx import defs

            try:
                self._schemas[key] = defs.get_schema(node.op_type, version, node.domain)
            except defs.SchemaError:
                self._schemas[key] = None
        return self._schemas[key]

    def _ask(self, node: Node, types: tuple[ValueType, ...], scope: Scope) -> tuple[ValueType, ...]:
        """Onnx's answer for the node's outputs; declared types where onnx does not know the operator."""
        version, inputs, outputs = self._version(node, scope), node.inputs, node.outputs
        contents = self._contents(node, scope)
        attrs = self.attributes(node, scope)
        attr_keys = tuple([(name, attr_key(a)) for name, a in attrs.items()]) if attrs else ()
        absent = tuple([v is None for v in inputs]) if None in inputs else ()
        unnamed = (not outputs[0].name) if len(outputs) == 1 else tuple([not o.name for o in outputs])
        contents += self._floats(node) if node.op_type in _FLOAT_CONTENTS else ()
        key = (node.op_type, node.domain, version, types, absent, unnamed, attr_keys, contents)
        answer = self._answers.get(key)
        if answer is None:
            schema = self._schema(node, version)
            if schema is None:
                known = contrib_rules.outputs(node, version, types, attrs, self.table)
                told = list(zip(node.outputs, known, strict=True))
                self.taken_as_declared.update(o for o, k in told if k is None)
                if known[0] is None:
                    domain = node.domain or "ai.onnx"
                    self.note(node, f"no schema for {domain}.{node.op_type} at opset {version}")
                return tuple(self.table.of_value(o) if k is None else k for o, k in told)
            answer = self._answers[key] = self._question(schema, node, types, attrs, contents, scope)
        if answer[1] is not None:
            self.note(node, answer[1])
        return answer[0]

    def _contents(self, node: Node, scope: Scope) -> Contents:
        """(index, shape, items) of inputs whose contents are known numbers and matter for shapes."""
        op = node.op_type
        if not scope.data or op in _CONTENT_FREE or op.startswith("QLinear"):
            return ()
        found: list[tuple[int, tuple[int, ...], tuple[float, ...]]] = []
        for index, value in enumerate(node.inputs):
            data = None if value is None else scope.data.get(value)
            if data is not None:
                items = tuple(data.ravel())
                if all(isinstance(item, int) for item in items):
                    found.append((index, data.shape, items))
        return tuple(found)

    def _question(
        self,
        schema: OpSchema,
        node: Node,
        types: tuple[ValueType, ...],
        attrs: Mapping[str, Attr],
        contents: Contents,
        scope: Scope,
    ) -> Answer:
        import onnx
        from onnx import checker, shape_inference

        names = ["" if v is None else f"i{k}" for k, v in enumerate(node.inputs)]
        outputs = [f"o{k}" if o.name else "" for k, o in enumerate(node.outputs)]
        proto = onnx.NodeProto(op_type=node.op_type, domain=node.domain, input=names, output=outputs)
        proto.attribute.extend(attribute_proto(a) for a in attrs.values() if a.type not in _GRAPH_TYPES)
        known = {n: self.table.proto(t) for n, t in zip(names, types, strict=True) if n}
        data = {f"i{k}": _tensor(types[k].elem, shape, items) for k, shape, items in contents}
        imports = [onnx.OperatorSetIdProto(domain=d, version=v) for d, v in scope.opsets.items()]
        if node.op_type == "Squeeze" and _no_axes(attrs, contents):
            return self._same_type(schema, node, types), "an empty list of axes is read as none and as all"
        try:
            result = shape_inference.infer_node_outputs(schema, proto, known, data, opset_imports=imports)
        except (*_REFUSALS, shape_inference.InferenceError, checker.ValidationError) as error:
            kept = self._same_type(schema, node, types)
            return kept, f"{REFUSED} {', '.join(map(str, types))}: {one_line(error, 160)}"
        found = tuple(
            self.table.of_proto(result[name]) if name in result else self.table.unknown for name in outputs
        )
        if any(t.elem == 0 and t.other is None for t in found):
            kept = self._same_type(schema, node, types)
            found = tuple(self.table.meet(a, b) for a, b in zip(found, kept, strict=True))
        return found, None

    def _same_type(self, schema: OpSchema, node: Node, types: tuple[ValueType, ...]) -> tuple[ValueType, ...]:
        """Element types that the schema ties to an input's, shapes unknown."""
        elems: dict[str, int] = {}
        for index, known in enumerate(types):
            formal = schema.inputs[min(index, len(schema.inputs) - 1)] if schema.inputs else None
            if formal is not None and known.elem:
                elems.setdefault(formal.type_str, known.elem)
        found: list[ValueType] = []
        for index in range(len(node.outputs)):
            formal = schema.outputs[min(index, len(schema.outputs) - 1)] if schema.outputs else None
            found.append(self.table.tensor(elems.get(formal.type_str, 0) if formal is not None else 0, None))
        return tuple(found)

    def _floats(self, node: Node) -> Contents:
        """The same of inputs whose contents are floating-point numbers."""
        view = NodeView(node.op_type, 0, (), (), {}, node.inputs, 0)
        found: list[tuple[int, tuple[int, ...], tuple[float, ...]]] = []
        for index in _FLOAT_CONTENTS[node.op_type]:
            items, array = view.floats(index), constant(node.inputs[index]) if view.has(index) else None
            if items is not None and array is not None and array.dtype.kind not in "biu":
                found.append((index, array.shape, tuple(items)))
        return tuple(found)


def _no_axes(attrs: Mapping[str, Attr], contents: Contents) -> bool:
    given = attrs.get("axes")
    return not given.as_ints() if given is not None else any(i == 1 and not items for i, _, items in contents)


def _tensor(elem: int, shape: tuple[int, ...], items: tuple[Any, ...]) -> onnx.TensorProto:
    from onnx import helper

    return helper.make_tensor("", elem, shape, items)
