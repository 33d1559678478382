# SPDX-License-Identifier: Apache-2.0
"""Run a model in torch, with gradients (the `train` extra). Torch is loaded when a `TorchModel` is made."""

from .extra import require_torch
from .model import TorchModel

__all__ = ["TorchModel", "require_torch"]
