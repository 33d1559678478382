# SPDX-License-Identifier: Apache-2.0
"""Pipeline texts with a name, for `opt`, `build` and recipes (`preset = "lossless"`)."""

from __future__ import annotations

from difflib import get_close_matches

from ..graph_ir import UsageError

FREEZE = "freeze-default-inputs"

LOSSLESS = (
    "inline,eliminate-dead-code,infer-shapes,"
    "(fold-constants,fold-shapes,share-shapes,inline-constant-if,eliminate-no-ops,eliminate-zero-states,"
    "eliminate-identity,"
    "merge-cast,einsum-to-matmul,sink-transpose,permute-flattened-weights,merge-transpose,merge-reshape,"
    "merge-concat,merge-slice,merge-clip,merge-min-max,"
    "canonicalize,fuse-hard-swish,fuse-gelu,fuse-layer-norm,reduce-mean-to-global-average-pool,"
    "fold-focus,fold-pad,fold-crop,fold-batch-norm,fold-branches,fold-affine,matmul-add-to-gemm,cse,"
    "dedup-weights,eliminate-dead-code)!"
)

# The same for a runtime that knows newer opsets than the model's: one operator there for several here.
_FUSIONS = "fuse-hard-swish,fuse-gelu,fuse-layer-norm"
_RAISING = ",".join(f"{name}{{raise-opset=true}}" for name in _FUSIONS.split(","))
RAISED = (
    "expand-skip-layer-norm{raise-opset=true},"
    f"{LOSSLESS.replace(_FUSIONS, _RAISING)},"
    "infer-shapes,fuse-rotary{raise-opset=true},fuse-attention{raise-opset=true},resize-channels-last,"
    "fold-constants,cse,dedup-weights,eliminate-dead-code"
)

# What Q/DQ per channel and the int8 kernels start from.
INT8_READY = (
    "infer-shapes,slice-filters{int8=true},fold-shortcut,merge-groups{int8=true},eliminate-dead-code,"
    "raise-opset{to=13},fuse-mish{raise-opset=true},infer-shapes,conv-transpose-to-conv,"
    "pixels-to-filters,affine-to-conv,fold-affine,"
    "split-prelu{int8=true},infer-shapes,unshare-vectors,align-channels"
)

# What suits onnxruntime on CPU in a model that nothing else will be done to.
FINISH = (
    "infer-shapes,slice-filters,pixels-to-filters,fold-shortcut,convolve-over-two-axes,infer-shapes,"
    "align-channels{every=true},"
    "merge-groups,split-prelu,spread-gates,resize-to-matmul,softmax-by-rows,repeat-constants,"
    "activations-by-exp,sum-before-layer-norm,eliminate-dead-code,sink-constants,declare-shapes"
)

# What channels are removed from: constants told apart from what is computed, Einsum as a product, keys
# transposed without leaving their heads, copies of a weight cut as one, and no vectors shared by chance.
PRUNE_READY = (
    f"{FREEZE},inline,infer-shapes,(fold-constants,fold-shapes,inline-constant-if,einsum-to-matmul)!,"
    "canonicalize,merge-transpose,eliminate-zero-states,eliminate-dead-code,infer-shapes,part-merged-axes,"
    "eliminate-dead-code,dedup-weights,unshare-vectors"
)

PRESETS: dict[str, str] = {
    "lossless": LOSSLESS,
    "raised": RAISED,
    "int8-ready": INT8_READY,
    "finish": FINISH,
    "prune-ready": PRUNE_READY,
}


def preset(name: str) -> str:
    """The pipeline text of a preset.

    Raises:
        UsageError: for an unknown name.
    """
    if name in PRESETS:
        return PRESETS[name]
    near = get_close_matches(name, PRESETS, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(PRESETS)}"
    raise UsageError(f"no preset is called {name!r}; {hint}")
