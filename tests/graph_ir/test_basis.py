# SPDX-License-Identifier: Apache-2.0
"""What onnx-ir needs for arithmetic on symbolic dims is loaded when it is first used, and works then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).resolve().parents[2] / "src"

PROGRAM = """
import sys
from tersor.graph_ir import Shape, SymbolicDim, parse, verify

verify(parse("<ir_version: 8, opset_import: ['' : 17]> g (float[N,2] x) => (float[N,2] y) { y = Abs(x) }"
             .replace("'", '"')))
assert "sympy.core" not in sys.modules
print(SymbolicDim("N") + 1, SymbolicDim("max(N, 3)") * 2)
assert "sympy.core" in sys.modules
import sympy

print(isinstance(sympy.Symbol("N") + 1, sympy.Expr), Shape(["N"]))
"""


def test_sympy_is_loaded_at_its_first_use() -> None:
    source = f"import sys; sys.path.insert(0, {str(SRC)!r})\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["N + 1 2*Max(3, N)", "True [N]"], done.stderr
