# SPDX-License-Identifier: Apache-2.0
"""Move data layouts."""
