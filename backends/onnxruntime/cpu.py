# SPDX-License-Identifier: Apache-2.0
"""What decides which kernels run: the processor's instruction sets, its cores and the runtime's version."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from ...analysis.cores import usable_cores

# As Linux spells them in /proc/cpuinfo. x86: saturating or exact int8 dot products, tiles; ARM: dot products.
RELEVANT = (
    "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni", "avx_vnni_int8",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme",
)  # fmt: skip
_EXACT = frozenset({"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"})
_CPUINFO = Path("/proc/cpuinfo")
_SYSCTL = "/usr/sbin/sysctl"
_ALIASES = {
    "avx1.0": "avx", "avx2_0": "avx2", "avx512vnni": "avx512_vnni", "avxvnni": "avx_vnni",
    "advsimd": "asimd", "neon": "asimd", "feat_dotprod": "asimddp", "feat_i8mm": "i8mm", "feat_bf16": "bf16",
    "feat_fp16": "asimdhp", "feat_sme": "sme",
}  # fmt: skip


@dataclass(frozen=True)
class Host:
    """Where a model was measured; `flags` are the relevant ones in a fixed order, empty when unknown."""

    system: str
    machine: str
    cpu: str
    flags: tuple[str, ...]
    cores: int
    onnxruntime: str

    def to_dict(self) -> dict[str, object]:
        """Plain values for a lock file."""
        return {**asdict(self), "flags": list(self.flags)}


def host() -> Host:
    """Facts of this machine; never raises for what it cannot find out."""
    name, flags = _processor()
    return Host(
        system=platform.system(),
        machine=platform.machine(),
        cpu=name,
        flags=flags,
        cores=usable_cores(),
        onnxruntime=runtime_version(),
    )


def saturates(found: Host) -> bool:
    """Whether uint8 by int8 products may saturate at 16 bits: x86 known to lack VNNI and AMX.

    There 8-bit weights give wrong sums by chance, and 7-bit ones do not. Unknown flags count as no.
    """
    x86 = found.machine.lower() in {"x86_64", "amd64", "x86", "i386", "i686"}
    return x86 and bool(found.flags) and not _EXACT & set(found.flags)


def runtime_version() -> str:
    """Installed version of onnxruntime without importing it; empty when it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("onnxruntime")
    except PackageNotFoundError:
        return ""


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """Model name and relevant flags out of Linux's /proc/cpuinfo (x86 `flags`, ARM `Features`)."""
    name, words = "", set[str]()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        title = key.strip().lower()
        if title == "model name" and not name:
            name = value.strip()
        elif title in {"flags", "features"} and not words:
            words = set(value.lower().split())
    return name, _relevant(words)


def parse_sysctl(text: str) -> tuple[str, tuple[str, ...]]:
    """Model name and relevant flags out of macOS's `sysctl machdep.cpu hw.optional`."""
    name, words = "", set[str]()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == "machdep.cpu.brand_string":
            name = value.strip()
        elif key.startswith("machdep.cpu.") and key.endswith("features"):
            words.update(value.lower().split())
        elif key.startswith("hw.optional.") and value.strip() == "1":
            words.add(key.rpartition(".")[2].lower())
    return name, _relevant(words)


def _relevant(words: set[str]) -> tuple[str, ...]:
    known = words | {_ALIASES[word] for word in words if word in _ALIASES}
    return tuple(flag for flag in RELEVANT if flag in known)


def _processor() -> tuple[str, tuple[str, ...]]:
    try:
        return parse_cpuinfo(_CPUINFO.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        pass
    if platform.system() != "Darwin":
        return platform.processor(), ()
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed system program with fixed arguments
            [_SYSCTL, "machdep.cpu", "hw.optional"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return platform.processor(), ()
    return parse_sysctl(answer.stdout)
