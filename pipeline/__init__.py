# SPDX-License-Identifier: Apache-2.0
"""Order and watch: pipeline text, recipes, manager, instruments."""
