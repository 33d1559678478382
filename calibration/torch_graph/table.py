# SPDX-License-Identifier: Apache-2.0
"""What torch does for each operator of ai.onnx."""

from __future__ import annotations

from . import elementwise, linear, movement, norm, quant, recurrent, reduce, resize, windows
from .call import Function

FUNCTIONS: dict[str, Function] = {
    **elementwise.TABLE,
    **linear.TABLE,
    **movement.TABLE,
    **norm.TABLE,
    **quant.TABLE,
    **recurrent.TABLE,
    **reduce.TABLE,
    **resize.TABLE,
    **windows.TABLE,
}
