# SPDX-License-Identifier: Apache-2.0
"""Tensors of narrow types keep every bit through files, inside the model and beside it."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tersor.graph_ir import constant, from_proto, load, save, tensor, to_proto

KINDS = {
    "INT4": (ml_dtypes.int4, 4),
    "UINT4": (ml_dtypes.uint4, 4),
    "FLOAT8E4M3FN": (ml_dtypes.float8_e4m3fn, 8),
    "FLOAT8E4M3FNUZ": (ml_dtypes.float8_e4m3fnuz, 8),
    "FLOAT8E5M2": (ml_dtypes.float8_e5m2, 8),
    "FLOAT8E5M2FNUZ": (ml_dtypes.float8_e5m2fnuz, 8),
    "BFLOAT16": (ml_dtypes.bfloat16, 16),
    "FLOAT16": (np.float16, 16),
}


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_bit_pattern_survives(kind: str, external: bool, tmp_path: Path) -> None:
    dtype, bits = KINDS[kind]
    # Two bytes of four bits make one; an odd number of elements leaves half a byte over.
    codes = np.arange(2**bits, dtype=np.uint16 if bits == 16 else np.uint8)
    if bits == 4:
        signed = codes.astype(np.int8) - (8 if kind == "INT4" else 0)
        array = np.concatenate([signed, signed[:3]]).astype(dtype)
    else:
        array = codes.view(dtype)
    number = getattr(TensorProto, kind)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "g",
        [],
        [helper.make_tensor_value_info("y", number, array.shape)],
        [numpy_helper.from_array(array, "w")],
    )
    opset = [helper.make_opsetid("", 21)]
    model = from_proto(helper.make_model(graph, opset_imports=opset, ir_version=10))
    model.graph.initializers["w"].const_value = tensor(array, name="w")
    save(model, tmp_path / "m.onnx", external_data=external)
    again = load(tmp_path / "m.onnx")
    found = constant(again.graph.initializers["w"])
    assert found is not None
    assert found.dtype == array.dtype
    assert found.tobytes() == array.tobytes()
    stored = onnx.load(tmp_path / "m.onnx").graph.initializer[0]
    assert stored.data_type == number
    assert len(stored.raw_data) == (array.size * bits + 7) // 8
    assert to_proto(again).graph.initializer[0].data_type == number
