# SPDX-License-Identifier: Apache-2.0
"""One rule for each family of operators: what of a node's axes is tied and what must stay.

An operator that is not in the table has all its axes pinned. A rule that meets a form of its operator it does
not understand pins the node, with the reason.
"""

from __future__ import annotations

from ..ties import Rule
from . import (
    attention,
    attention_contrib,
    bodies,
    einsum,
    elementwise,
    gather,
    linear,
    matmul,
    normalise,
    pool,
    quantize,
    recurrent,
    reduce,
    reshape,
    shape_ops,
    shape_reads,
    sources,
)

RULES: dict[tuple[str, str], Rule] = {
    **linear.RULES,
    **matmul.RULES,
    **einsum.RULES,
    **elementwise.RULES,
    **normalise.RULES,
    **pool.RULES,
    **reduce.RULES,
    **shape_ops.RULES,
    **reshape.RULES,
    **gather.RULES,
    **recurrent.RULES,
    **attention.RULES,
    **attention_contrib.RULES,
    **quantize.RULES,
    **sources.RULES,
    **shape_reads.RULES,
    **bodies.RULES,
}
"""By (domain, operator), "" for ai.onnx."""
