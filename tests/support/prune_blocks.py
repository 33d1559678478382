# SPDX-License-Identifier: Apache-2.0
"""All topologies a channel pruner must cut, by name; each call makes the model anew."""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.prune_blocks_conv import CONV_BLOCKS
from tests.support.prune_blocks_more import MORE_BLOCKS
from tests.support.prune_blocks_seq import SEQUENCE_BLOCKS
from tests.support.prune_blocks_shapes import SHAPE_BLOCKS
from tests.support.prune_build import Maker

BLOCKS: Mapping[str, Maker] = {**CONV_BLOCKS, **SHAPE_BLOCKS, **SEQUENCE_BLOCKS, **MORE_BLOCKS}
