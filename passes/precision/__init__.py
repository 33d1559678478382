# SPDX-License-Identifier: Apache-2.0
"""Narrower floating point."""
