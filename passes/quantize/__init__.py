# SPDX-License-Identifier: Apache-2.0
"""Int8 and other narrow arithmetic."""
