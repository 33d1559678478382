# SPDX-License-Identifier: Apache-2.0
"""The main job: from a model to the fastest one that keeps its accuracy, with proof."""

from .flow import build
from .result import BuildResult, Candidate, Judgement
from .settings import BuildSettings

__all__ = ["BuildResult", "BuildSettings", "Candidate", "Judgement", "build"]
