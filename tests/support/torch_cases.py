# SPDX-License-Identifier: Apache-2.0
"""One line per operator and form, for the comparison of torch with onnxruntime.

    opset | shape of x | constants | nodes, the last of which makes y

Constants: `w:2,3` seeded floats of this shape; `a=0,2` an int64 vector, `a==1` a scalar; `v~1.,2.` a float
vector, `v~~1.` a scalar; `i(2,2)=0,1,2,1` int64 of a shape.
"""

from __future__ import annotations

import re

from tersor.graph_ir import Model, parse

_CONSTANT = re.compile(r"(\w+)(?:\(([\d,]+)\))?(:|==|=|~~|~)(\S+)")

_LINES = """
18 | 3,4 | | t = Sin(x) y = Acos(t)
20 | 3,4 | | y = Gelu(x)
20 | 3,4 | | y = Gelu<approximate="tanh">(x)
11 | 2,3,4 | | y = Softmax(x)
18 | 2,3,4 | | y = LogSoftmax<axis=1>(x)
18 | 2,3,4,5 | w:3,1,1 | y = PRelu(x, w)
18 | 3,4 | l~~-0.5 h~~0.5 | y = Clip(x, l, h)
10 | 3,4 | | y = Clip<min=-0.5>(x)
18 | 3,4 | w:4 | t = Abs(x) y = Pow(t, w)
18 | 3,4 | w~1.,2.,-1.,0.5 | y = Mod<fmod=1>(x, w)
18 | 3,4 | w:4 v:3,1 | y = Max(x, w, v)
18 | 3,4 | w:4 | y = Mean(x, w)
18 | 3,4 | w:4 | c = Less(x, w) y = Where(c, x, w)
18 | 3,4 | w:5,3 b:5 | y = Gemm<alpha=0.5, beta=2., transA=1, transB=1>(x, w, b)
18 | 4,3,5 | w:2,3 | y = MatMul(w, x)
18 | 2,3,4 | w:4,6 | y = Einsum<equation="bij,jk->bik">(x, w)
18 | 2,4,7,6 | w:6,4,3,2 b:6 | y = Conv<pads=[1,0,2,1], strides=[2,1], dilations=[1,2]>(x, w, b)
18 | 2,4,7,6 | w:6,2,2,2 | y = Conv<auto_pad="SAME_LOWER", strides=[2,2], group=2>(x, w)
18 | 2,4,7 | w:6,4,3 | y = Conv(x, w)
18 | 1,2,4,4,4 | w:3,2,2,2,2 | y = Conv(x, w)
18 | 2,4,5,6 | w:4,3,3,3 b:6 |
  y = ConvTranspose<strides=[2,2], pads=[1,0,1,2], output_padding=[1,0], group=2>(x, w, b)
18 | 2,4,5,6 | w:4,3,3,3 | y = ConvTranspose<strides=[2,2], auto_pad="SAME_UPPER">(x, w)
18 | 2,4,5,6 | w:4,3,3,3 | y = ConvTranspose<strides=[2,2], output_shape=[10,12]>(x, w)
18 | 2,3,8,7 | | y = MaxPool<kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1], dilations=[2,1]>(x)
18 | 2,3,8,8 | | y = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x)
18 | 2,3,8,7 | | y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)
18 | 2,3,8,7 | | y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)
18 | 2,3,8 | | y = AveragePool<kernel_shape=[2], auto_pad="SAME_UPPER">(x)
19 | 2,3,9 | | y = AveragePool<kernel_shape=[2], strides=[2], ceil_mode=1>(x)
15 | 2,3,4 | s:3 b:3 m:3 v~1.,2.,0.5 | y = BatchNormalization(x, s, b, m, v)
18 | 2,3,4,5 | s:3 b:3 | y = InstanceNormalization(x, s, b)
18 | 2,3,4,5 | s:4,5 b:4,5 | y = LayerNormalization<axis=-2>(x, s, b)
21 | 2,4,5 | s:4 b:4 | y = GroupNormalization<num_groups=2>(x, s, b)
18 | 2,5,3,4 | | y = LRN<size=3>(x)
18 | 2,5,3 | | y = LpNormalization<axis=1, p=1>(x)
18 | 2,3,4,5 | | y = MeanVarianceNormalization(x)
13 | 2,3,4 | | y = ReduceMean<axes=[-1,1], keepdims=0>(x)
18 | 2,3,4 | a=1 | y = ReduceL2(x, a)
18 | 2,3,4 | | y = ReduceMax<keepdims=0>(x)
18 | 2,3,4 | a=0,2 | y = ReduceLogSumExp(x, a)
18 | 2,3,4 | a=0,2 | y = ReduceProd(x, a)
18 | 2,3,4 | a=-1 | y = ReduceSumSquare<noop_with_empty_axes=1>(x, a)
18 | 2,3,4 | | y = ReduceSum<noop_with_empty_axes=1>(x)
18 | 2,3,4 | a==1 | y = CumSum<exclusive=1, reverse=1>(x, a)
18 | 2,5 | k=2 | y, i = TopK(x, k)
18 | 2,3,4 | s=0,-1,2 | y = Reshape(x, s)
18 | 2,3,4 | | s = Shape<start=1>(x) r = ConstantOfShape(s) y = Add(x, r)
18 | 2,1,4,1 | | y = Squeeze(x)
18 | 2,3 | a=-1,0 | y = Unsqueeze(x, a)
11 | 2,3 | | y = Unsqueeze<axes=[1]>(x)
13 | 2,6,3 | | a, b, c = Split<axis=1>(x) y = Concat<axis=-1>(c, a, b)
18 | 2,5,3 | | a, b = Split<axis=1, num_outputs=2>(x) y = Concat<axis=1>(b, a)
13 | 2,6,3 | s=3,3 | a, b = Split<axis=1>(x, s) y = Sub(b, a)
18 | 4,3,6 | s=-1,1 e=-100,1000 a=0,2 t=-1,2 | y = Slice(x, s, e, a, t)
9 | 4,5 | | y = Slice<starts=[1], ends=[-1], axes=[1]>(x)
18 | 2,3,4 | i(2,2)=0,-1,2,1 | y = Gather<axis=1>(x, i)
18 | 5,4 | w:4,3 | i = ArgMax<axis=1, keepdims=0>(x) y = Gather(w, i)
18 | 2,3 | i(2,2)=0,-1,2,1 | y = GatherElements<axis=1>(x, i)
18 | 2,3,4 | i(3,2)=0,1,1,2,1,0 | y = GatherND(x, i)
18 | 3,4 | i(2,1)=0,2 u:2,4 | y = ScatterND(x, i, u)
18 | 3,1 | s=2,1,4 | y = Expand(x, s)
18 | 3,2 | s=2,3 | y = Tile(x, s)
18 | 2,3,4 | p=0,1,2,0,0,-1 v~~1.5 | y = Pad(x, p, v)
18 | 2,5 | p=0,2,0,3 | y = Pad<mode="reflect">(x, p)
18 | 2,5 | p=2,1 a=-1 | y = Pad<mode="edge">(x, p, , a)
10 | 2,5 | | y = Pad<pads=[1,0,1,0], value=2.>(x)
18 | 2,8,3,4 | | y = DepthToSpace<blocksize=2, mode="CRD">(x)
18 | 2,8,3,4 | | y = DepthToSpace<blocksize=2>(x)
18 | 2,3,4,6 | | y = SpaceToDepth<blocksize=2>(x)
18 | 2,4,4 | | y = Trilu<upper=0>(x)
18 | 5,4 | d==4 v~-1.,2. | i = ArgMin<axis=1, keepdims=0>(x) y = OneHot<axis=1>(i, d, v)
18 | 3,4 | a~~0. b~~4. c~~1. | r = Range(a, b, c) y = Mul(x, r)
18 | 3,4 | | i = Cast<to=7>(x) f = Cast<to=1>(i) y = Add(x, f)
18 | 3,4 | k==2 | i = Cast<to=7>(x) j = Div(i, k) y = Cast<to=1>(j)
18 | 1,2,4,3 | s~1.,1.,1.7,2. | y = Resize<mode="nearest">(x, , s)
18 | 1,2,4,3 | s=1,2,7,5 |
  y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, , , s)
18 | 1,2,4,3 | s=1,2,2,1 |
  y = Resize<mode="linear", coordinate_transformation_mode="pytorch_half_pixel">(x, , , s)
13 | 1,2,4,3 | s~1.,1.,2.,2. |
  y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , s)
10 | 1,2,4,4 | s~1.,1.,2.,1.5 | y = Resize<mode="linear">(x, s)
9 | 1,2,4,4 | s~1.,1.,2.,3. | y = Upsample<mode="nearest">(x, s)
14 | 5,2,4 | w:1,12,4 r:1,12,3 b:1,24 | y, h, c = LSTM<hidden_size=3>(x, w, r, b)
14 | 5,2,4 | w:2,12,4 r:2,12,3 | y = LSTM<hidden_size=3, direction="bidirectional">(x, w, r)
14 | 5,2,4 | w:1,9,4 r:1,9,3 b:1,18 h:1,2,3 | y = GRU<hidden_size=3>(x, w, r, b, , h)
14 | 5,2,4 | w:1,9,4 r:1,9,3 b:1,18 |
  y = GRU<hidden_size=3, direction="reverse", linear_before_reset=1>(x, w, r, b)
13 | 3,4 | s~~0.1 | q = QuantizeLinear(x, s) y = DequantizeLinear(q, s)
13 | 3,4 | s~0.1,0.2,0.3,0.4 z=3,0,-5,2 |
  c = Cast<to=3>(z) q = QuantizeLinear<axis=1>(x, s, c) y = DequantizeLinear<axis=1>(q, s, c)
18 | 3,4 | z~~0. k:4 | s = ReduceSum<keepdims=0>(x) c = Greater(s, z)
  y = If(c) <then_branch = a () => (float[3,4] p) { p = Mul(x, k) },
             else_branch = b () => (float[3,4] q) { q = Sub(x, k) }>
"""


def cases() -> list[str]:
    """The lines, each with its continuations."""
    return re.split(r"\n(?=\S)", _LINES.strip())


def case_model(line: str) -> Model:
    """The model that a line stands for; it has one output, y."""
    opset, x, constants, body = (part.strip() for part in line.split("|", 3))
    declared = ", ".join(_declared(*found.groups()) for found in _CONSTANT.finditer(constants))
    return parse(f"""<ir_version: 8, opset_import: ["" : {opset}]>
    g (float[{x}] x) => (float y) <{declared}> {{ {body} }}""")


def _declared(name: str, shape: str | None, kind: str, text: str) -> str:
    if kind == ":":
        return f"float[{text}] {name} = {{seed}}"
    dtype = "int64" if kind.startswith("=") else "float"
    extent = "" if len(kind) == 2 else f"[{shape or text.count(',') + 1}]"
    return f"{dtype}{extent} {name} = {{{text}}}"
