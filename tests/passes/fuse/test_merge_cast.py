# SPDX-License-Identifier: Apache-2.0
"""Every pair of Casts that is merged keeps its bits; the lossy ones stay."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tersor.graph_ir import DataType, parse
from tersor.passes.fuse.merge_cast import MergeCasts, casts_alike, is_lossless
from tests.support.numerics import assert_bitwise
from tests.support.rewriting import declined, rewrite

MERGE = MergeCasts()
TYPES = [
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float",
    "double",
]


def chain(source: str, middle: str, target: str) -> str:
    to = {name: int(DataType[name.upper()]) for name in (middle, target)}
    return f"""<ir_version: 8, opset_import: ["" : 17]> g ({source}[N] x) => ({target}[N] y) {{
      a = Cast<to = {to[middle]}>(x) y = Cast<to = {to[target]}>(a) }}"""


def extremes(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    kind = DataType[name.upper()].numpy()
    if name == "bool":
        return np.array([True, False])
    if np.issubdtype(kind, np.integer):
        info = np.iinfo(kind)
        odd = [0, 1, 3, 7, info.max, info.min, info.max - 1, info.max // 3, (info.max >> 1) + 1, 127, 100]
        return np.array(odd, dtype=kind)
    info = np.finfo(kind)
    values = [
        0.0,
        -0.0,
        1.0,
        -1.5,
        0.1,
        np.nan,
        np.inf,
        -np.inf,
        info.max,
        info.min,
        info.tiny,
        info.smallest_subnormal,
    ]
    return np.array(values, dtype=kind)


@pytest.mark.parametrize("source", TYPES)
def test_every_pair_that_is_merged_gives_the_same_bits(source: str) -> None:
    merged = 0
    for middle, target in itertools.product(TYPES, TYPES):
        s, m, t = (DataType[name.upper()] for name in (source, middle, target))
        if middle in (source, target) or not (is_lossless(s, m) and casts_alike(s, m, t)):
            continue
        model = parse(chain(source, middle, target))
        done = rewrite(MERGE, model, numbers=False)
        assert done.ops == (["Identity"] if source == target else ["Cast"])
        assert_bitwise(done.before, done.model, {"x": extremes(source)})
        merged += 1
    assert merged > 0 or source in ("double", "int64", "uint64")


@pytest.mark.parametrize(
    ("source", "middle", "target", "reason"),
    [
        ("float", "float16", "float", "the first loses values"),
        ("int64", "int32", "int64", "the first loses values"),
        ("int32", "float", "int32", "the first loses values"),
        ("int16", "float16", "int16", "the first loses values"),
        ("int8", "uint8", "int8", "the first loses values"),
        ("uint8", "int8", "uint8", "the first loses values"),
        ("float", "int32", "float", "the first loses values"),
        ("float", "bool", "float", "the first loses values"),
        ("float", "double", "int8", "the second may differ by where it starts"),
        ("int32", "double", "int8", "the second may differ by where it starts"),
        ("int32", "double", "float16", "the second may differ by where it starts"),
        ("float", "string", "float", "the first loses values"),
    ],
)
def test_near_misses(source: str, middle: str, target: str, reason: str) -> None:
    assert declined(MERGE, parse(chain(source, middle, target))) == {reason}


def test_saturate_of_the_second_goes_along() -> None:
    text = """<ir_version: 9, opset_import: ["" : 19]> g (float16[4] x) => (float[4] y) {
      a = Cast<to = 1>(x) b = Cast<to = 17, saturate = 0>(a) y = Cast<to = 1>(b) }"""
    done = rewrite(MERGE, parse(text), numbers=False)
    assert "b = Cast<saturate=0, to=17>(x)" in done.text
    values = np.array([1e4, 448.0, 500.0, np.nan], np.float16)
    assert_bitwise(done.before, done.model, {"x": values})


def test_bfloat16_and_eight_bit_floats() -> None:
    assert is_lossless(DataType.BFLOAT16, DataType.FLOAT)
    assert not is_lossless(DataType.BFLOAT16, DataType.FLOAT16)
    assert not is_lossless(DataType.FLOAT16, DataType.BFLOAT16)
    assert is_lossless(DataType.FLOAT8E5M2, DataType.FLOAT16)
    assert not is_lossless(DataType.FLOAT16, DataType.FLOAT8E5M2)
    assert is_lossless(DataType.UINT8, DataType.BFLOAT16)
    assert not is_lossless(DataType.INT16, DataType.BFLOAT16)
    assert not is_lossless(DataType.STRING, DataType.FLOAT)
    assert not is_lossless(DataType.INT4, DataType.INT8)


def test_a_first_cast_that_is_an_output_stays_unless_the_second_undoes_it() -> None:
    text = chain("float", "double", "float16").replace("=> (float16[N] y)", "=> (float16[N] y, double[N] a)")
    assert declined(MERGE, parse(text)) == {"the first is read by others"}
    text = chain("float", "double", "float").replace("=> (float[N] y)", "=> (float[N] y, double[N] a)")
    assert rewrite(MERGE, parse(text)).ops == ["Cast", "Identity"]
