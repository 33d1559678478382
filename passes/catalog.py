# SPDX-License-Identifier: Apache-2.0
"""The table of passes: one line each, loaded when named; plug-ins add to it by an entry point group."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from ..graph_ir import UsageError
from .base import Pass

ENTRY_POINTS = "tersor.passes"

TABLE: dict[str, str] = {
    "inline": "clean.inline:Inline",
    "inline-constant-if": "clean.inline_if:InlineConstantIf",
    "eliminate-dead-code": "clean.dead_code:EliminateDeadCode",
    "eliminate-identity": "clean.identity:EliminateIdentity",
    "eliminate-no-ops": "clean.no_ops:EliminateNoOps",
    "eliminate-zero-states": "clean.zero_states:EliminateZeroStates",
    "cse": "clean.cse:EliminateCommonSubexpressions",
    "fold-constants": "clean.fold_constants:FoldConstants",
    "fold-shapes": "clean.fold_shapes:FoldShapes",
    "share-shapes": "clean.share_shapes:ShareShapes",
    "dedup-weights": "clean.dedup_weights:DeduplicateWeights",
    "sink-constants": "clean.sink_constants:SinkConstants",
    "freeze-default-inputs": "clean.freeze:FreezeDefaultInputs",
    "infer-shapes": "clean.infer_shapes:InferShapes",
    "declare-shapes": "clean.declare_shapes:DeclareShapes",
    "fold-batch-norm": "fuse.batch_norm:FoldBatchNorm",
    "fold-affine": "fuse.affine:FoldAffine",
    "fold-branches": "fuse.branches:FoldBranches",
    "affine-to-conv": "fuse.affine_conv:AffineToConv",
    "conv-transpose-to-conv": "fuse.conv_transpose:ConvTransposeToConv",
    "fold-pad": "fuse.pad:FoldPad",
    "fold-crop": "fuse.crop:FoldCrop",
    "fold-focus": "fuse.focus:FoldFocus",
    "fold-shortcut": "fuse.shortcut:FoldShortcut",
    "expand-skip-layer-norm": "fuse.skip_norm:ExpandSkipLayerNorm",
    "sum-before-layer-norm": "fuse.sum_before_norm:SumBeforeLayerNorm",
    "slice-filters": "fuse.slice_filters:SliceFilters",
    "pixels-to-filters": "fuse.few_filters:PixelsToFilters",
    "merge-groups": "fuse.groups:MergeGroups",
    "einsum-to-matmul": "fuse.einsum:EinsumToMatMul",
    "matmul-add-to-gemm": "fuse.matmul_add:MatMulAddToGemm",
    "reduce-mean-to-global-average-pool": "fuse.global_pool:ReduceMeanToGlobalAveragePool",
    "resize-to-matmul": "fuse.resize_matmul:ResizeToMatMul",
    "split-prelu": "fuse.prelu:SplitPRelu",
    "canonicalize": "fuse.canonicalize:Canonicalize",
    "adaptive-rounding": "quantize.adaptive_rounding:AdaptiveRounding",
    "align-channels": "quantize.align_channels:AlignChannels",
    "binary-weights": "quantize.binary:BinaryWeights",
    "equalize": "quantize.equalize:Equalize",
    "gptq": "quantize.gptq:Gptq",
    "insert-qdq": "quantize.insert_qdq:InsertQdq",
    "quantize-dynamic": "quantize.dynamic:QuantizeDynamic",
    "apply-plan": "prune.apply:ApplyPlan",
    "smooth-quant": "quantize.smooth_quant:SmoothQuant",
    "weight-only": "quantize.weight_only:WeightOnly",
    "ternary-weights": "quantize.ternary:TernaryWeights",
    "store-half": "precision.store_half:StoreHalf",
    "to-float": "precision.single:ToFloat",
    "to-half": "precision.half:ToHalf",
    "raise-opset": "clean.raise_opset:RaiseOpset",
    "fuse-hard-swish": "fuse.hard_swish:FuseHardSwish",
    "fuse-silu": "fuse.silu:FuseSilu",
    "fuse-mish": "fuse.mish:FuseMish",
    "activations-by-exp": "fuse.by_exp:ActivationsByExp",
    "fuse-gelu": "fuse.gelu:FuseGelu",
    "fuse-rotary": "fuse.rotary:FuseRotary",
    "fuse-layer-norm": "fuse.layer_norm:FuseLayerNorm",
    "fuse-attention": "fuse.attention:FuseAttention",
    "sink-transpose": "layout.sink_transpose:SinkTransposes",
    "resize-channels-last": "layout.resize:ResizeChannelsLast",
    "spread-gates": "layout.gates:SpreadGates",
    "softmax-by-rows": "layout.softmax:SoftmaxByRows",
    "repeat-constants": "layout.repeat_constants:RepeatConstants",
    "permute-flattened-weights": "layout.flattened_weights:PermuteFlattenedWeights",
    "convolve-over-two-axes": "layout.two_axes:ConvolveOverTwoAxes",
    "merge-transpose": "fuse.merge_transpose:MergeTransposes",
    "merge-reshape": "fuse.merge_reshape:MergeReshapes",
    "merge-concat": "fuse.merge_concat:MergeConcats",
    "merge-slice": "fuse.merge_slice:MergeSlices",
    "merge-cast": "fuse.merge_cast:MergeCasts",
    "merge-clip": "fuse.merge_clip:MergeClips",
    "merge-min-max": "fuse.merge_min_max:MergeMinMaxes",
    "sparsify": "prune.sparsity:Sparsify",
    "part-merged-axes": "prune.merged_axes:PartMergedAxes",
    "unshare-vectors": "prune.unshare:UnshareVectors",
}


@cache
def _plugins() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


def names() -> list[str]:
    """Names of all passes, built in and plugged in, sorted."""
    return sorted({*TABLE, *_plugins()})


def get(name: str) -> type[Pass]:
    """The class of a pass.

    Raises:
        UsageError: for an unknown name (with the nearest ones) or a plug-in that cannot be loaded.
    """
    from difflib import get_close_matches

    if name in TABLE:
        module, _, attribute = TABLE[name].partition(":")
        loaded = getattr(import_module(f".{module}", __package__), attribute)
    elif name in _plugins():
        module, _, attribute = _plugins()[name].partition(":")
        try:
            loaded = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"plug-in pass {name!r} ({_plugins()[name]}) cannot be loaded: {error}"
            ) from error
    else:
        near = get_close_matches(name, names(), 3)
        hint = f"; did you mean {', '.join(near)}?" if near else "; see `tersor passes`"
        raise UsageError(f"no pass is called {name!r}{hint}")
    if not (isinstance(loaded, type) and issubclass(loaded, Pass)):
        raise UsageError(f"plug-in {name!r} is not a Pass")
    return loaded
