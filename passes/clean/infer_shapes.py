# SPDX-License-Identifier: Apache-2.0
"""Shape and type inference as a step of a pipeline."""

from __future__ import annotations

from typing import ClassVar

from ...analysis.shapes import infer_shapes
from ...graph_ir import Model
from ..base import Context, Exactness, Pass


class InferShapes(Pass):
    """Give values their types and shapes, for the passes that ask for them; the graph itself stays as it is.

    A value's shape does not change when its producer is rewritten, so what was inferred stays true.
    """

    name: ClassVar[str] = "infer-shapes"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        infer_shapes(model)
        return False
