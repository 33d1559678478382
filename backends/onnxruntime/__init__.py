# SPDX-License-Identifier: Apache-2.0
"""onnxruntime on CPU: sessions, the fusion audit, and measurements of time and of concurrent use."""
