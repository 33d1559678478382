# SPDX-License-Identifier: Apache-2.0
"""What a model is: load, save, edit, verify.

The IR is onnx-ir, re-exported as it is (docs/decisions/0001); no other folder imports onnx_ir.
"""

from .basis import (
    Attr,
    AttributeType,
    DataType,
    ExternalTensor,
    Function,
    Graph,
    Model,
    Node,
    Shape,
    SymbolicDim,
    Tensor,
    TensorProtocol,
    TensorType,
    Value,
    tensor,
)
from .errors import (
    CheckError,
    ClaimError,
    DataError,
    ModelError,
    TersorError,
    UnsupportedModelError,
    UsageError,
    VerifyError,
    a_kind,
    one_line,
)
from .fingerprint import fingerprint, structure_fingerprint
from .guard import notes
from .io import INFERRED, atomic_write, from_proto, gc_paused, load, save, to_proto
from .ops import constant, is_constant
from .rewriter import Rewriter
from .text import parse, to_text
from .verify import Signature, signature_of, verify

__all__ = [
    "INFERRED",
    "Attr",
    "AttributeType",
    "CheckError",
    "ClaimError",
    "DataError",
    "DataType",
    "ExternalTensor",
    "Function",
    "Graph",
    "Model",
    "ModelError",
    "Node",
    "Rewriter",
    "Shape",
    "Signature",
    "SymbolicDim",
    "Tensor",
    "TensorProtocol",
    "TensorType",
    "TersorError",
    "UnsupportedModelError",
    "UsageError",
    "Value",
    "VerifyError",
    "a_kind",
    "atomic_write",
    "constant",
    "fingerprint",
    "from_proto",
    "gc_paused",
    "is_constant",
    "load",
    "notes",
    "one_line",
    "parse",
    "save",
    "signature_of",
    "structure_fingerprint",
    "tensor",
    "to_proto",
    "to_text",
    "verify",
]
