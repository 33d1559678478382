# SPDX-License-Identifier: Apache-2.0
"""Processor facts from the systems' own words."""

from __future__ import annotations

import json

import pytest

from tersor.backends.onnxruntime import cpu

X86 = """processor\t: 0
model name\t: Some CPU @ 3 GHz
flags\t\t: fpu avx2 avx avx512f avx512_vnni amx_int8 unknown
processor\t: 1
model name\t: Some CPU @ 3 GHz
flags\t\t: fpu
"""
ARM = "processor : 0\nFeatures : fp asimd asimddp i8mm sve\nCPU implementer : 0x41\n"
MAC_ARM = """machdep.cpu.brand_string: Some Chip
hw.optional.AdvSIMD: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 0
"""
MAC_X86 = (
    "machdep.cpu.brand_string: Some CPU\nmachdep.cpu.features: FPU AVX1.0\nmachdep.cpu.leaf7_features: AVX2\n"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86, ("Some CPU @ 3 GHz", ("avx", "avx2", "avx512f", "avx512_vnni", "amx_int8"))),
        (ARM, ("", ("asimd", "asimddp", "i8mm", "sve"))),
        ("", ("", ())),
    ],
)
def test_linux(text: str, expected: tuple[str, tuple[str, ...]]) -> None:
    assert cpu.parse_cpuinfo(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MAC_ARM, ("Some Chip", ("asimd", "asimddp"))),
        (MAC_X86, ("Some CPU", ("avx", "avx2"))),
    ],
)
def test_mac(text: str, expected: tuple[str, tuple[str, ...]]) -> None:
    assert cpu.parse_sysctl(text) == expected


def test_this_machine_goes_into_a_lock_file() -> None:
    facts = cpu.host()
    assert facts.cores >= 1
    assert facts.onnxruntime == cpu.runtime_version() != ""
    assert json.loads(json.dumps(facts.to_dict()))["flags"] == list(facts.flags)
    assert set(facts.flags) <= set(cpu.RELEVANT)


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", ("avx", "avx2", "fma"), True),
        ("AMD64", ("avx2", "avx512f", "avx512bw"), True),
        ("x86_64", ("avx2", "avx512f", "avx512_vnni"), False),
        ("x86_64", ("avx2", "avx_vnni"), False),
        ("x86_64", ("avx512f", "amx_int8"), False),
        ("x86_64", (), False),
        ("aarch64", ("asimd", "asimddp"), False),
    ],
)
def test_products_saturate_on_x86_without_vnni(machine: str, flags: tuple[str, ...], expected: bool) -> None:
    assert cpu.saturates(cpu.Host("Linux", machine, "", flags, 1, "")) is expected
