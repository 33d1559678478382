# SPDX-License-Identifier: Apache-2.0
"""What each operator needs, besides sliced weights, when axes of its inputs or outputs lose positions.

Each operator is named once: in `FIXES` where something must be mended, in `PLAIN` where nothing is. One that
is in neither stops the pass; the rules of the coupling graph never lead there (a test holds the two
tables together).
"""

from __future__ import annotations

from collections.abc import Callable

from ....analysis.contrib_rules import MICROSOFT
from ....graph_ir import Node
from ....graph_ir.ops import STANDARD_DOMAINS, has_reference_attribute, has_subgraph
from . import counts, parts, shapes
from .cuts import Cuts

Fix = Callable[[Cuts, Node], None]

FIXES: dict[tuple[str, str], Fix] = {
    ("", "Attention"): counts.attention,
    ("", "ConstantOfShape"): shapes.constant_of_shape,
    ("", "Conv"): counts.conv,
    ("", "ConvInteger"): counts.conv,
    ("", "ConvTranspose"): counts.conv_transpose,
    ("", "Expand"): shapes.expand,
    ("", "GRU"): counts.recurrent,
    ("", "Gather"): parts.gather,
    ("", "GroupNormalization"): counts.group_norm,
    ("", "LSTM"): counts.recurrent,
    ("", "Pad"): parts.pad,
    ("", "QLinearConv"): counts.qlinear_conv,
    ("", "RNN"): counts.recurrent,
    ("", "Reshape"): shapes.reshape,
    ("", "Resize"): shapes.resize,
    ("", "RotaryEmbedding"): counts.rotary,
    ("", "Shape"): shapes.shape_of,
    ("", "Size"): shapes.size_of,
    ("", "Slice"): parts.slice_,
    ("", "Split"): parts.split,
    ("", "Tile"): shapes.tile,
    (MICROSOFT, "Attention"): counts.packed_attention,
    (MICROSOFT, "FusedConv"): counts.conv,
    (MICROSOFT, "GroupQueryAttention"): counts.group_query,
    (MICROSOFT, "MultiHeadAttention"): counts.multi_head,
    (MICROSOFT, "RotaryEmbedding"): counts.rotary,
}

_ELEMENTWISE = (
    *("Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "Bernoulli", "BitShift"),
    *("BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "CastLike", "Ceil", "Celu", "Clip"),
    *("Cos", "Cosh", "Div", "Dropout", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater"),
    *("GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less"),
    *("LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow"),
    *("RandomNormalLike", "RandomUniformLike", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid"),
    *("Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh"),
    *("ThresholdedRelu", "Where", "Xor"),
)
_OTHERS = (
    *("ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Concat", "Constant", "CumProd", "CumSum"),
    *("DeformConv", "DepthToSpace", "DequantizeLinear", "DynamicQuantizeLinear", "Einsum", "Flatten"),
    *(
        "GatherElements",
        "GatherND",
        "Gemm",
        "GlobalAveragePool",
        "GlobalLpPool",
        "GlobalMaxPool",
        "GridSample",
        "Hardmax",
    ),
    *("If", "InstanceNormalization", "LRN", "LayerNormalization", "LogSoftmax", "LpNormalization", "LpPool"),
    *("MatMul", "MatMulInteger", "MaxPool", "MaxRoiPool", "MeanVarianceNormalization", "OneHot"),
    *("QLinearMatMul", "QuantizeLinear", "RMSNormalization", "ReduceL1", "ReduceL2", "ReduceLogSum"),
    *("ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"),
    *("ReduceSumSquare", "ReverseSequence", "RoiAlign", "Scatter", "ScatterElements", "ScatterND"),
    *("SimplifiedLayerNormalization", "Softmax", "SpaceToDepth", "Squeeze", "TopK", "Transpose", "Trilu"),
    *("Unsqueeze", "Upsample"),
)
_MICROSOFT = (
    *("BiasGelu", "DequantizeLinear", "DynamicQuantizeMatMul", "EmbedLayerNormalization", "FastGelu"),
    *("FusedGemm", "FusedMatMul", "Gelu", "QuantizeLinear", "QuickGelu"),
    *("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"),
)
PLAIN: frozenset[tuple[str, str]] = frozenset(
    (*(("", name) for name in (*_ELEMENTWISE, *_OTHERS)), *((MICROSOFT, name) for name in _MICROSOFT))
)


def mend(cuts: Cuts, node: Node) -> None:
    """Make a node with a cut input or output right, in front of the slicing of weights.

    Raises:
        VerifyError: it cannot be; the analysis should have pinned it.
    """
    key = "" if node.domain in STANDARD_DOMAINS else node.domain, node.op_type
    if has_reference_attribute(node) or (has_subgraph(node) and key not in PLAIN):
        cuts.refuse(node, "it has bodies, or attributes of its function")
    fix = FIXES.get(key)
    if fix is not None:
        fix(cuts, node)
    elif key not in PLAIN:
        cuts.refuse(node, "nothing is known of this operator")
