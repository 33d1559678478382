# SPDX-License-Identifier: Apache-2.0
"""Remove what does nothing."""
