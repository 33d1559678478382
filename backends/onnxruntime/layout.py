# SPDX-License-Identifier: Apache-2.0
"""What keeps a float node out of onnxruntime's blocked layout (NCHWc), read from the optimized graph.

In that layout convolutions run fastest, and changes to and from it (ReorderInput, ReorderOutput) cost time.
The conditions are those of onnxruntime's NchwcTransformer, held against onnxruntime 1.31 in the tests.
"""

from __future__ import annotations

from .charge import Kernel, SourceNode
from .graph_view import Verdict, int_attribute

BLOCKED = "com.microsoft.nchwc"


def layout_verdict(item: SourceNode, kernel: Kernel) -> Verdict | None:
    """Why a float kernel is not blocked although it costs: None when it is, or nothing is known.

    Args:
        item: the node of the model.
        kernel: what it became.
    """
    if kernel.node.domain == BLOCKED:
        return None
    if item.node.op_type == "Conv":
        return _convolution(item)
    if _between_reorders(kernel):
        return Verdict(
            "breaks-layout",
            "it runs outside the blocked layout (NCHWc): its inputs are reordered before it and its result "
            "behind it",
        )
    return None


def _convolution(item: SourceNode) -> Verdict | None:
    weight = item.scope.tensor(item.node.input[1])
    if weight is None:
        return Verdict("not-blocked", "its weights are not constant, so it has no blocked form (NCHWc)")
    if len(weight.dims) != 4:
        return Verdict("not-blocked", "only convolutions over two axes have a blocked form (NCHWc)")
    group = int_attribute(item.node, "group", 1)
    outputs, inputs = weight.dims[0], weight.dims[1]
    each = outputs // group
    if group == 1 and inputs % 4:
        return Verdict(
            "not-blocked", f"its {inputs} input channels are no multiple of 4: no blocked form (NCHWc)"
        )
    if group > 1 and inputs == each == 1 and outputs % 4:
        return Verdict("not-blocked", f"its {outputs} channels are no multiple of 4: no blocked form (NCHWc)")
    if group > 1 and not inputs == each == 1:
        return Verdict(
            "not-blocked",
            f"its {group} groups of {inputs} to {each} channels are no whole blocks: no blocked form (NCHWc)",
        )
    return None


def _between_reorders(kernel: Kernel) -> bool:
    scope = kernel.scope
    makers = [scope.producer(name) for name in kernel.node.input if name]
    before = any(maker is not None and maker.op_type == "ReorderOutput" for maker in makers)
    readers = [reader for name in kernel.node.output if name for reader in scope.readers(name)]
    return before and any(reader.op_type == "ReorderInput" for reader in readers)
