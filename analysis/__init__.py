# SPDX-License-Identifier: Apache-2.0
"""Facts about a model, read only."""
