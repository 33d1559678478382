# SPDX-License-Identifier: Apache-2.0
"""What onnxruntime says when it fails, in one line."""

from __future__ import annotations

import re

from ..graph_ir import one_line

_PREFIX = re.compile(r"^\[ONNXRuntimeError\]\s*:\s*\d+\s*:\s*\w+\s*:\s*")
_SOURCE = re.compile(r"/\S+\.(?:cc|h|cpp):\d+ .*?(?:was false\.|\) (?=[A-Z]))\s*")
_RUNNING = re.compile(
    r"Non-zero status code returned while running (\S+) node\. Name:'(.*?)' Status Message: (.*)"
)
_UNREGISTERED = re.compile(
    r"(?<![\w.])(?!com\.microsoft:)[\w.]+:\w+\(-?\d+\) is not a registered function/op"
)
_UNREGISTERED_HINT = "; tersor registers no libraries of custom operators, opt and inspect need none"


def explain(message: str) -> str:
    """One line out of an onnxruntime message: the node and the reason, without its source locations."""
    text = one_line(_PREFIX.sub("", message), 2000)
    if _UNREGISTERED.search(text):
        return one_line(text) + _UNREGISTERED_HINT
    running = _RUNNING.search(text)
    if running is None:
        return one_line(_SOURCE.sub("", text))
    op_type, node, reason = running.groups()
    where = f"node {node!r} ({op_type})" if node else f"a {op_type} without a name"
    return one_line(f"{where}: {_SOURCE.sub('', reason)}")
