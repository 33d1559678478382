# SPDX-License-Identifier: Apache-2.0
"""Fold and fuse neighbouring operators."""
