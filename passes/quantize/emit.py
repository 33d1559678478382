# SPDX-License-Identifier: Apache-2.0
"""Write a `QuantPlan` into the model.

Forms that the runtime fuses in a default session (each has a test that reads the runtime's own graph back):

    x -> Q -> DQ -> Conv(DQ(int8 W), DQ(int32 B)) -> Q -> DQ    one Q and one DQ for each value
    DQ -> Gemm(DQ W, DQ B)                            float out: the bias must be int32
    Q -> com.microsoft.MatMulIntegerToFloat           N-d with a bias, or into a float Add; as MatMul and Add
                                                      behind a DQ they would become a Gemm of floats
    Q -> com.microsoft.QLinearConv -> DQ              of rows with a bias, where a Relu ends in codes
    Q -> Pad -> DQ -> Conv                            of pictures, whose few channels miss the fast kernel
    Conv -> Q -> Slice -> DQ                          of more filters, zeros, where so few would miss it
    DQ with equal scales per channel -> float Conv    a scalar DQ would let the runtime requantise W
    DQ -> com.microsoft.QuickGelu -> Q                SiLU; hard gates in int8 (see `gates`)
    DQ -> depthwise Conv(DQ(127 ...)) -> Q            an average; the runtime's own int8 one is slow
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ...analysis.contrib_rules import MICROSOFT
from ...graph_ir import Node, Rewriter, Value, constant
from ...graph_ir.numerics import QuantParams
from ...graph_ir.ops import dims, float_attr, input_at, int_attr, is_constant, is_op, rank
from ..linear.rows import RowView
from .gates import gated, hard_sigmoid, hard_swish, swish
from .kinds import BOUNDS, PASSING, average_kernel, data_inputs
from .linear_form import LinearForm, Numbers
from .quant_plan import NodePlan, QuantPlan, Role
from .row_convolution import row_convolution
from .values import ValueWriter

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WEIGHED = ("Conv", "ConvTranspose", "Gemm")
_FOURS, _FEWEST = 4, 16  # the fast int8 kernel takes so many channels at once, and makes so many at least
_SOME_PIXELS = 64


class Emitter:
    """Rewrites the planned nodes of one graph, in graph order.

    Args:
        rewriter: the door.
        plan: what to do; no edit may have happened since it was made.
        numbers: the numbers of a planned linear node whose data input has this grid; see `linear_form`.
    """

    def __init__(self, rewriter: Rewriter, plan: QuantPlan, numbers: Numbers) -> None:
        self.rw, self.plan, self._numbers = rewriter, plan, numbers
        self.values = ValueWriter(rewriter, plan.params)
        self._filters: dict[Value, int] = {}  # the result of more filters than there were -> how many count

    def run(self, nodes: Sequence[Node]) -> int:
        """Emit all planned nodes; the number of nodes that became int8."""
        done = 0
        for node in nodes:
            planned = self.plan.nodes.get(node)
            if planned is None:
                if node in self.plan.kept or (is_op(node, *_WEIGHED) and not is_constant(input_at(node, 1))):
                    self._keep_apart(node)
                else:
                    self._keep_float(node)
                continue
            with self.rw.standing_for(planned.absorbed(node)[::-1]):
                if planned.role is Role.NATIVE:
                    self._native(node)
                else:
                    self._emit(node, planned)
            done += 1
        self.values.drop_unread()
        return done

    def _emit(self, node: Node, planned: NodePlan) -> None:
        old = list(node.outputs) if planned.role is Role.PASSING else [self.plan.carrier(node)]
        for value, made in zip(old, self._kernel(node, planned), strict=True):
            ready = made
            if planned.quantized_out and self.values.codes_of(made) is None:
                ready = self.values.quantized(made, self.plan.params[value], node, value.name or "")
            if made in self._filters:
                ready = self.values.narrowed(ready, self._filters[made], node)
            if value in self.plan.params and self.values.codes_of(ready) is None:
                self.plan.params[ready] = self.plan.params[value]  # for the int8 nodes that quantise it
            self.rw.replace(value, ready)
        self.rw.erase_all(planned.absorbed(node))

    def _kernel(self, node: Node, planned: NodePlan) -> Sequence[Value]:
        if planned.role is Role.LINEAR:
            return [self._linear(node, planned)]
        if planned.gate is not None:
            return [gated(node, planned.gate, self.values, self.rw)]
        if node.op_type == "Swish":
            x = self.values.operand(node.inputs[0], node)
            return [swish(x, float_attr(node, "alpha", 1.0), node, self.rw)]
        if node.op_type == "HardSwish":
            return [hard_swish(node, self.values, self.rw)]
        if node.op_type == "HardSigmoid":
            line = hard_sigmoid(node, self.plan.params[self.plan.carrier(node)], self.values, self.rw)
            if line is not None:
                return [line]
        if (average := average_kernel(node)) is not None:
            return [self._average(node, *average)]
        data = set(data_inputs(node))
        inputs = [self.values.operand(v, node) if v in data else v for v in node.inputs]
        if node.op_type == "Conv" and (bias := constant(input_at(node, 2))) is not None:
            x, w = map(self.values.grid_of, data_inputs(node))
            inputs[2] = self.values.bias(bias, x, w, node)
        kept, count = list(node.attributes.values()), len(node.outputs)
        return self.rw.node(node.op_type, inputs, kept, before=node, name=_title(node), outputs=count).outputs

    def _average(self, node: Node, channels: int, kernel: list[int]) -> Value:
        """An average as a depthwise convolution of equal weights: the code 127 with the scale 1 / (127 n)."""
        scale = np.full(channels, 1 / (127 * int(np.prod(kernel))), np.float32)
        params = QuantParams(scale, np.zeros(channels, np.int8), 0)
        name = f"{node.outputs[0].name}_average"
        weights = self.rw.constant(np.full((channels, 1, *kernel), 127, np.int8), f"{name}_weights", node)
        ready = self.values.dequantized(weights, params, node, name)
        kept = {"auto_pad", "kernel_shape", "pads", "strides"}
        attributes = [a for a in node.attributes.values() if a.name in kept]
        inputs = [self.values.operand(node.inputs[0], node), ready]
        made = self.rw.node("Conv", inputs, attributes, before=node, name=_title(node))
        self.rw.set_attribute(made, "group", channels)
        return made.outputs[0]

    def _native(self, node: Node) -> None:
        """An operator without a rule that is defined on codes: between Q and DQ, padding with zero's code."""
        found = self.values.codes_of(node.inputs[0])
        assert found is not None
        codes, params = found
        out = node.outputs[0]
        inputs: list[Value | None] = [codes, *node.inputs[1:]]
        if node.op_type == "Pad":
            _, zero = self.values.grid(params, node, out.name or "")
            inputs[2:3] = [zero]
        attributes = list(node.attributes.values())
        made = self.rw.node(node.op_type, inputs, attributes, before=node, name=_title(node))
        self.rw.replace(out, self.values.dequantized(made.outputs[0], params, node, out.name or ""))
        self.rw.erase(node)

    def _linear(self, node: Node, planned: NodePlan) -> Value:
        x, source = node.inputs[0], node.inputs[1]
        assert x is not None
        assert source is not None
        grid = self.values.grid_of(x)
        form = self._numbers(node, planned, grid)
        weights, params, bias = form.weights, form.params, form.bias
        attributes = [a for a in node.attributes.values() if a.name not in ("alpha", "beta")]
        data, title = self.values.operand(x, node), _title(node)
        if planned.bias_add is not None and rank(x) != 2 and planned.quantized_out:
            result = self.plan.params[self.plan.carrier(node)]
            return row_convolution(node, data, form, result, self.values, title)
        if (planned.bias_add is not None and rank(x) != 2) or _is_summed_or_clamped(node, planned):
            return self._into_float(node, data, form)
        lacking = _lacking_channels(node, weights)
        wide = self.values.widened(x, lacking, node) if lacking else None
        if wide is not None:
            data, weights = wide, _padded(weights, 1, lacking)
        count, more = len(weights), _lacking_filters(node, weights) if planned.quantized_out else 0
        if more:
            weights, params = _padded(weights, 0, more), _more(params, more)
            bias = None if bias is None else _padded(bias, 0, more)
        inputs = [data, self.values.weight(source, weights, params, node)]
        if bias is not None:
            inputs.append(self.values.bias(bias, grid, params, node))
        op_type = "Gemm" if planned.bias_add is not None else node.op_type
        made = self.rw.node(op_type, inputs, attributes, before=node, name=title).outputs[0]
        if more:
            self._filters[made] = count
        return made

    def _into_float(self, node: Node, data: Value | None, form: LinearForm) -> Value:
        """A MatMul or Gemm, with its bias if it has one, as the one operator that the runtime has for it."""
        found, source = self.values.codes_of(data), node.inputs[1]
        assert found is not None
        assert source is not None
        codes, params = found
        scale, zero = self.values.grid(params, node, source.name or "")
        turned = RowView(node, form.weights.shape).by_row  # of a Gemm
        weight, w_scale, w_zero = self.values.weight_codes(
            source, form.weights, form.params, node, turned=turned
        )
        operands = [codes, weight, scale, w_scale, zero, w_zero]
        if form.bias is not None:
            operands.append(self.rw.constant(form.bias, f"{source.name}_bias", node))
        self.rw.import_domain(node, MICROSOFT)
        kind = "MatMulIntegerToFloat"
        return self.rw.node(kind, operands, before=node, name=_title(node), domain=MICROSOFT).outputs[0]

    def _keep_float(self, node: Node) -> None:
        """Keep a float Conv, ConvTranspose or Gemm between DQ and Q float in a default session.

        The runtime replaces such a node's weights by per-tensor int8 ones, if the DQ has a scalar scale. One
        equal scale for each channel dequantises to the same values and stops it.
        """
        source = node.inputs[0] if is_op(node, *_WEIGHED) else None
        weights = None if self.values.codes_of(source) is None else constant(node.inputs[1])
        if source is None or weights is None or not self._meets_int8(node.outputs[0]):
            return
        read = RowView(node, weights.shape)
        with self.rw.standing_for([node]):
            self.rw.set_input(
                node, 0, self.values.spread(source, read.in_axis, read.groups * read.inputs, node)
            )

    def _keep_apart(self, node: Node) -> None:
        """Keep a node of activations float: a Sum of one operand before its Q stops the fusion."""
        out = node.outputs[0]
        if not self._meets_int8(out) or not any(map(self.values.codes_of, data_inputs(node))):
            return
        with self.rw.standing_for([node]):
            attributes, title = list(node.attributes.values()), _title(node)
            made = self.rw.node(node.op_type, node.inputs, attributes, before=node, name=title).outputs
            apart = self.values.node("Sum", made, node, f"{title}_float")
            if out in self.plan.params:
                self.plan.params[apart] = self.plan.params[out]
            self.rw.replace(out, apart)
            self.rw.erase(node)

    def _meets_int8(self, value: Value) -> bool:
        while True:
            users = [user for user, _ in value.uses()]
            if any(user in self.plan.nodes for user in users):
                return True
            if len(users) != 1 or not is_op(users[0], *BOUNDS, *PASSING):
                return False
            value = users[0].outputs[0]


def _is_summed_or_clamped(node: Node, planned: NodePlan) -> bool:
    """Whether it ends in float and the runtime takes an Add for its bias, or looks for a Q behind a clamp."""
    if planned.quantized_out:
        return False
    users = [user for user, _ in planned.handed(node)[0].uses()]
    summed = node.op_type == "MatMul" and planned.bias_add is None and any(is_op(u, "Add") for u in users)
    return summed or (len(users) == 1 and is_op(users[0], *BOUNDS))


def _lacking_channels(node: Node, weights: NDArray[Any]) -> int:
    """How many input channels a Conv of pictures lacks to the fast int8 kernel, which takes fours."""
    shape = weights.shape
    fits = _of_pictures(node, weights) and shape[0] >= _FEWEST and shape[0] % _FOURS == 0
    return _FOURS - shape[1] if fits and shape[1] < _FOURS and max(shape[2:]) > 1 else 0


def _lacking_filters(node: Node, weights: NDArray[Any]) -> int:
    """How many filters a Conv of pictures lacks to the fast int8 kernel, where that is worth a Slice behind.

    The other kernel copies the patches of each pixel first. Of one pixel there is nothing to copy, and the
    fast kernel pays for 16 filters and more that miss fours.
    """
    count, channels, *kernel = weights.shape
    if not _of_pictures(node, weights) or channels % _FOURS:
        return 0
    sizes = [d for d in (dims(node.outputs[0]) or ())[2:] if isinstance(d, int)]
    known = len(sizes) == len(kernel)
    if (known and prod(sizes) < _SOME_PIXELS) or (max(kernel) == 1 and (count < _FEWEST or not known)):
        return 0
    return max(_FEWEST - count, -count % _FOURS)


def _of_pictures(node: Node, weights: NDArray[Any]) -> bool:
    return is_op(node, "Conv") and int_attr(node, "group", 1) == 1 and weights.ndim == 4


def _padded(array: NDArray[Any], axis: int, extra: int) -> NDArray[Any]:
    """Zeros at the end of one axis."""
    return np.pad(array, [(0, extra if i == axis else 0) for i in range(array.ndim)])


def _more(params: QuantParams, extra: int) -> QuantParams:
    """The grids of so many channels more, like that of the last one."""
    if params.axis is None:
        return params
    pad = (0, extra)
    return QuantParams(np.pad(params.scale, pad, "edge"), np.pad(params.zero_point, pad, "edge"), params.axis)


def _title(node: Node) -> str:
    return node.name or node.outputs[0].name or node.op_type
