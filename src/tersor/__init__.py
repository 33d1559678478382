# SPDX-License-Identifier: Apache-2.0
"""tersor: ONNX graph-level compiler passes that make deployed models smaller and faster."""

__version__ = "0.1.0"
