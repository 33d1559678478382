# SPDX-License-Identifier: Apache-2.0
"""Which redefinitions of ai.onnx operators leave every valid old node valid, with the same meaning.

Read from the operators' change log. In each line the newer definition only allows more: further dtypes,
negative axes, optional inputs and attributes whose defaults are the old behaviour. What changes meaning or
form is in `opset_steps`; what is in neither is refused. tests/passes/test_opset_table.py holds each line
against the schemas.
"""

from __future__ import annotations

from ..graph_ir import DataType

_WIDER: dict[int, str] = {
    8: "Max MaxPool Mean Min Sum",
    9: "Cast Constant Flatten Gemm Greater Less MatMul PRelu",
    10: "AveragePool MaxPool",
    11: (
        "ArgMax ArgMin AveragePool Compress Concat Constant Conv DepthToSpace Equal Flatten Gather Gemm "
        "Hardmax If LogSoftmax Loop LpPool MaxPool NonMaxSuppression ReduceL1 ReduceL2 ReduceLogSum "
        "ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Scan Slice "
        "Softmax Split Squeeze TopK Unsqueeze"
    ),
    12: "ArgMax ArgMin Clip Constant GatherND Max MaxPool Min Pow ReduceMax ReduceMin",
    13: (
        "Abs Add ArgMax ArgMin Cast Ceil Clip Concat Constant DepthToSpace DequantizeLinear Div Dropout "
        "Equal Exp Expand Flatten Floor Gather GatherElements GatherND Gemm Greater Identity If IsNaN LRN "
        "Less Log Loop MatMul Max Mean MeanVarianceNormalization Min Mod Mul Neg "
        "NegativeLogLikelihoodLoss NonZero Pad Pow QuantizeLinear Reciprocal ReduceL1 ReduceL2 "
        "ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare Relu "
        "Reshape ScatterElements ScatterND Shape Sigmoid Sign Size Slice SoftmaxCrossEntropyLoss "
        "SpaceToDepth Sqrt Sub Sum Tanh Tile Transpose"
    ),
    14: "Add CumSum Div GRU Identity LSTM Mul RNN Relu Reshape Sub",
    15: "BatchNormalization Pow Shape",
    16: ("GreaterOrEqual Identity If LeakyRelu LessOrEqual Loop PRelu Scan ScatterElements ScatterND Where"),
    18: "LpPool OptionalGetElement OptionalHasElement Pad Resize ScatterElements ScatterND",
    19: (
        "Cast CastLike Constant DequantizeLinear Equal Identity If Loop Pad QuantizeLinear Reshape Resize "
        "Scan Shape Size"
    ),
    20: "ConstantOfShape IsInf IsNaN ReduceMax ReduceMin",
    21: (
        "Cast CastLike Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad "
        "QLinearMatMul QuantizeLinear Reshape Scan Shape Size Squeeze Transpose Unsqueeze"
    ),
    22: (
        "Acos Acosh Asin Asinh Atan Atanh AveragePool Bernoulli Conv ConvTranspose Cos Cosh DeformConv "
        "Det Dropout Elu EyeLike GRU GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample HardSigmoid "
        "HardSwish InstanceNormalization LSTM LpNormalization LpPool MaxPool MaxRoiPool MaxUnpool Mish "
        "Multinomial NegativeLogLikelihoodLoss RNN RandomNormal RandomNormalLike RandomUniform "
        "RandomUniformLike RoiAlign Round Selu Sin Sinh Softplus Softsign Tan ThresholdedRelu"
    ),
    23: (
        "Cast CastLike Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad "
        "QuantizeLinear Reshape Scan Shape Size Squeeze Transpose Unsqueeze"
    ),
    24: (
        "Cast CastLike Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad "
        "QuantizeLinear Reshape Scan Shape Size SplitToSequence Squeeze TopK Transpose Unsqueeze"
    ),
    25: (
        "Cast CastLike Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad "
        "QuantizeLinear Reshape Scan Shape Size Squeeze Transpose Unsqueeze"
    ),
}

COMPATIBLE = frozenset((name, version) for version, names in _WIDER.items() for name in names.split())
OLDEST = 7  # opset 6 and older broadcast by attributes, which nobody exports any more
NEWEST = 25  # the last opset read

# What onnxruntime's CPU has no kernel for from an opset on, while before it has one, or runs the operator's
# definition as a function (which it does as long as the definition's own operators are not redefined): the
# types it concerns, none for all. LpNormalization has one in newer releases.
# tests/passes/test_opset_table.py asks onnxruntime.
_DOUBLES = "Elu HardSigmoid HardSwish LeakyRelu Mish Selu Softplus Softsign ThresholdedRelu"
_NO_KERNEL = (
    "Bernoulli GlobalLpPool LpNormalization MaxRoiPool Multinomial RandomNormal RandomNormalLike "
    "RandomUniform RandomUniformLike RoiAlign"
)
UNRUN: dict[tuple[str, int], frozenset[DataType]] = {
    **{(name, 19): frozenset({DataType.DOUBLE}) for name in _DOUBLES.split()},
    ("PRelu", 19): frozenset(
        {DataType.DOUBLE, DataType.INT32, DataType.INT64, DataType.UINT32, DataType.UINT64}
    ),
    ("Relu", 19): frozenset({DataType.INT64}),
    ("ReduceLogSumExp", 19): frozenset({DataType.UINT32, DataType.UINT64, DataType.BFLOAT16}),
    **{(name, 22): frozenset[DataType]() for name in _NO_KERNEL.split()},
    ("Swish", 25): frozenset[DataType](),
}
