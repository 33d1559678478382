# SPDX-License-Identifier: Apache-2.0
"""Names of forms in words, and what is said where a form computes more than the original."""

from __future__ import annotations

import pytest

from tersor.passes.quantize.insert_qdq import InsertQdq
from tersor.pipeline.builder.form import PLAIN_WORDS, RULES, Form, plain
from tersor.pipeline.builder.model_facts import padding
from tersor.pipeline.builder.result import Facts
from tersor.pipeline.builder.search import OBSERVERS

METHODS = ("smooth-quant", "adaptive-rounding{bits=8 sweeps=2}")
MANY = InsertQdq(mse_weights=True, join_concats=True, float_tail=False, exclude=("a", "b"))


@pytest.mark.parametrize(
    ("form", "name", "words"),
    [
        (Form("mse", InsertQdq()), "int8 mse", ["static int8", "ranges by least squared error"]),
        (
            Form("minmax", InsertQdq(float_stem=False, exclude=("a",)), picked=(("x", "mse"),)),
            "int8 minmax picked-1 stem less-1",
            [
                "static int8",
                "ranges by the extremes, of 1 value by another rule",
                "the first convolution int8, too",
                "1 more layer left float",
            ],
        ),
        (
            Form("entropy", MANY, METHODS, "weight-only{bits=8}"),
            "int8 entropy mse-weights joined tail smooth-quant adaptive-rounding less-2 weight-only",
            [
                "static int8",
                "ranges by least divergence",
                "weight scales by least squared error",
                "one grid for what a Concat joins",
                "int8 to the very outputs",
                "after smooth-quant",
                "after adaptive-rounding",
                "2 more layers left float",
                "MatMul and Gemm among them with int8 weights",
            ],
        ),
        (plain("u8s8"), "plain u8s8", [PLAIN_WORDS]),
    ],
)
def test_each_word_of_a_name_is_said_in_words(form: Form, name: str, words: list[str]) -> None:
    assert (form.name, form.words) == (name, "; ".join(words))


def test_every_rule_that_is_tried_has_words() -> None:
    assert set(OBSERVERS) == set(RULES)
    assert Form("percentile:99.9", InsertQdq()).words == "static int8; ranges by percentiles"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (Facts(1, 100, 1, 1), Facts(1, 102, 1, 1), ""),
        (Facts(1, 100, 1, 1), Facts(1, 112, 1, 1), "MACs grow by 12%: channels padded with zeros"),
        (Facts(1, 0, 1, 1), Facts(1, 10, 1, 1), "MACs grow from nothing"),
        (Facts(1, 100, 1, 1, uncounted=1), Facts(1, 200, 1, 1), ""),
        (Facts(1, 100, 1, 1), Facts(1, 50, 1, 1), ""),
    ],
)
def test_more_work_than_the_original_has_is_said(before: Facts, after: Facts, said: str) -> None:
    assert "".join(padding(before, after)).startswith(said)
    assert bool(padding(before, after)) == bool(said)
