# SPDX-License-Identifier: Apache-2.0
"""What Conv, ConvTranspose, Gemm and MatMul have in common: rows of weights, times rows of inputs."""
