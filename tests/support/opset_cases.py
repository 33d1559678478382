# SPDX-License-Identifier: Apache-2.0
"""One node of an older opset each, and what it becomes in a newer one."""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """Opsets before and after, the node, its input and output types, its weights, and text to appear."""

    old: int
    new: int
    body: str
    x: str
    y: str
    weights: str
    made: str


IMAGE = "float[2,3,4,5] x"

REDEFINITIONS = [
    Case(*case)
    for case in (
        (
            9,
            10,
            "y = Slice<starts = [1], ends = [3], axes = [2]>(x)",
            IMAGE,
            "[2,3,2,5]",
            "",
            "Slice(x, y_starts, y_ends, y_axes)",
        ),
        (
            9,
            13,
            "y = Slice<starts = [1, 0], ends = [2, -1]>(x)",
            IMAGE,
            "[1,2,4,5]",
            "",
            "Slice(x, y_starts, y_ends)",
        ),
        (9, 10, "y, i = TopK<k = 2>(x)", IMAGE, "[2,3,4,2]", "", "TopK(x, y_k)"),
        (9, 11, "y = Clip<min = -0.5, max = 0.5>(x)", IMAGE, "[2,3,4,5]", "", "Clip(x, y_min, y_max)"),
        (9, 11, "y = Clip<max = 0.5>(x)", IMAGE, "[2,3,4,5]", "", "Clip(x, _, y_max)"),
        (9, 11, "y = Clip(x)", IMAGE, "[2,3,4,5]", "", "y = Clip(x)"),
        (9, 11, "y = Pad<pads = [0,0,1,2,0,0,2,1]>(x)", IMAGE, "[2,3,7,8]", "", "Pad(x, y_pads)"),
        (
            9,
            18,
            'y = Pad<mode = "reflect", pads = [0,0,1,2,0,0,2,1]>(x)',
            IMAGE,
            "[2,3,7,8]",
            "",
            "Pad<mode=reflect>(x, y_pads)",
        ),
        (
            9,
            11,
            "y = Pad<pads = [0,0,1,2,0,0,2,1], value = 1.5>(x)",
            IMAGE,
            "[2,3,7,8]",
            "",
            "Pad(x, y_pads, y_value)",
        ),
        (
            7,
            9,
            "y = Upsample<scales = [1.0, 1.0, 2.0, 3.0]>(x)",
            IMAGE,
            "[2,3,8,15]",
            "",
            "Upsample(x, y_scales)",
        ),
        (
            7,
            10,
            "y = Upsample<scales = [1.0, 1.0, 2.0, 3.0]>(x)",
            IMAGE,
            "[2,3,8,15]",
            "",
            "Resize(x, y_scales)",
        ),
        (
            9,
            11,
            'y = Upsample<mode = "linear">(x, s)',
            IMAGE,
            "[2,3,8,10]",
            "float[4] s = {1,1,2,2}",
            "Resize<coord",
        ),
        (
            9,
            13,
            'y = Upsample<mode = "nearest">(x, s)',
            IMAGE,
            "[2,3,10,10]",
            "float[4] s = {1,1,2.5,2}",
            "(x, _, s)",
        ),
        (
            10,
            13,
            "y = Resize(x, s)",
            IMAGE,
            "[2,3,10,10]",
            "float[4] s = {1,1,2.5,2}",
            "nearest_mode=floor>(x, _, s)",
        ),
        (
            10,
            19,
            'y = Resize<mode = "linear">(x, s)',
            IMAGE,
            "[2,3,10,10]",
            "float[4] s = {1,1,2.5,2}",
            "asymmetric, mode=linear>(x, _, s)",
        ),
        (9, 20, "y = Softmax<axis = 3>(x)", IMAGE, "[2,3,4,5]", "", "y = Softmax<axis=-1>(x)"),
        (9, 13, "y = Softmax(x)", IMAGE, "[2,3,4,5]", "", "y = Reshape(y_rows, y_shape)"),
        (11, 13, "y = LogSoftmax<axis = -2>(x)", IMAGE, "[2,3,4,5]", "", "y_flat = Flatten<axis=2>(x)"),
        (11, 13, "y = Hardmax<axis = 0>(x)", IMAGE, "[2,3,4,5]", "", "y_flat = Flatten<axis=0>(x)"),
        (11, 13, "y = Softmax(x)", "float[2,3,1,1] x", "[2,3,1,1]", "", "y = Softmax<axis=1>(x)"),
        (11, 13, "y = Softmax(x)", "float[2,3] x", "[2,3]", "", "y = Softmax<axis=-1>(x)"),
        (11, 13, "y = ReduceSum<axes = [1, -1]>(x)", IMAGE, "[2,1,4,1]", "", "ReduceSum(x, y_axes)"),
        (11, 13, "y = ReduceSum<keepdims = 0>(x)", IMAGE, "", "", "ReduceSum<keepdims=0>(x)"),
        (
            13,
            18,
            "y = ReduceMean<axes = [2, 3], keepdims = 0>(x)",
            IMAGE,
            "[2,3]",
            "",
            "ReduceMean<keepdims=0>(x, y_axes)",
        ),
        (
            11,
            18,
            "y, z = Split<axis = 2, split = [1, 3]>(x)",
            IMAGE,
            "[2,3,1,5]",
            "",
            "Split<axis=2>(x, y_split)",
        ),
        (11, 18, "y, z = Split<axis = 2>(x)", IMAGE, "[2,3,2,5]", "", "Split<axis=2, num_outputs=2>(x)"),
        (
            11,
            13,
            "u = Unsqueeze<axes = [0]>(x) y = Squeeze<axes = [0]>(u)",
            IMAGE,
            "[2,3,4,5]",
            "",
            "Squeeze(u, y_axes)",
        ),
        (9, 13, "y = Dropout<ratio = 0.3>(x)", IMAGE, "[2,3,4,5]", "", "y = Dropout(x)"),
        (
            9,
            15,
            "y = BatchNormalization(x, s, s, s, v)",
            IMAGE,
            "[2,3,4,5]",
            "float[3] s = {1,2,3}, float[3] v = {1,2,3}",
            "BatchNorm",
        ),
        (
            9,
            11,
            "y = Scatter<axis = 2>(x, i, u)",
            IMAGE,
            "[2,3,4,5]",
            "int64[1,1,1,1] i = {2}, float[1,1,1,1] u = {7}",
            "ScatterElements<axis=2>",
        ),
        (
            10,
            16,
            "y = RoiAlign(x, r, i)",
            IMAGE,
            "[1,3,1,1]",
            "float[1,4] r = {0,0,3,2}, int64[1] i = {1}",
            "output_half_pixel",
        ),
        (
            16,
            20,
            "y = GridSample(x, g)",
            IMAGE,
            "[2,3,1,1]",
            "float[2,1,1,2] g = {0.1,0.2,-0.3,0.4}",
            "mode=linear",
        ),
        (11, 13, "y = Erf(x)", IMAGE, "[2,3,4,5]", "", "y = Erf(x)"),
        (9, 18, "y = AveragePool<kernel_shape = [2,2]>(x)", IMAGE, "[2,3,3,4]", "", "AveragePool"),
    )
]
