# SPDX-License-Identifier: Apache-2.0
"""Helpers shared by tests: small models, feeds and reference runs."""
