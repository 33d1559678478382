# SPDX-License-Identifier: Apache-2.0
"""Measured facts: feeds, observers, ranges."""

from .channels import channel_maxima
from .collect import Histograms, choose, collect, survey
from .data import Feeds, open_feeds, random_feed
from .functions import load_function
from .histogram import Histogram
from .images import Preprocess
from .moments import second_moments
from .observers import Entropy, MinMax, Mse, Observer, Percentile, observer
from .ranges import Ranges, TensorRange
from .scheme import S8, U8, Scheme

__all__ = [
    "S8",
    "U8",
    "Entropy",
    "Feeds",
    "Histogram",
    "Histograms",
    "MinMax",
    "Mse",
    "Observer",
    "Percentile",
    "Preprocess",
    "Ranges",
    "Scheme",
    "TensorRange",
    "channel_maxima",
    "choose",
    "collect",
    "load_function",
    "observer",
    "open_feeds",
    "random_feed",
    "second_moments",
    "survey",
]
