# SPDX-License-Identifier: Apache-2.0
"""Leaving groups alone by name, operator or chain of operators."""

from __future__ import annotations

import pytest

from tersor.analysis.coupling import couple
from tersor.graph_ir import UsageError
from tersor.pipeline.prune.exclude import excluded
from tests.support.prune_models import chain, residual


def names(*patterns: str) -> list[str]:
    model = chain()
    return list(excluded(model, couple(model), patterns))


def test_a_layer_is_named_by_its_node_its_weight_or_its_value() -> None:
    assert names("second") == names("w1") == names("rb") == names("sec*") == ["b:1"]
    assert names("first", "third") == ["a:1", "c:1"]


def test_what_a_layer_only_sums_over_is_not_its_own() -> None:
    assert names("last") == []


def test_an_operator_stands_for_all_groups_it_makes_or_hands_on() -> None:
    assert names("op:Conv") == ["a:1", "b:1", "c:1"]
    assert names("op:GlobalAveragePool") == ["c:1"]


def test_a_chain_stands_for_the_groups_of_its_nodes() -> None:
    assert names("Relu>GlobalAveragePool") == ["c:1"]
    assert names("Conv > Relu > GlobalAveragePool > Conv") == ["c:1"]
    model = residual()
    found = excluded(model, couple(model), ["Conv>Relu>Conv>Relu"])
    assert found == {"b:1": "excluded by 'Conv>Relu>Conv>Relu'"}


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        ("secnod", "fits no node and no value; did you mean 'second'?"),
        ("op:Convv", "the model has no such operator; did you mean 'Conv'?"),
        ("Relu>Relu", "the model has no such chain of operators"),
    ],
)
def test_a_pattern_that_fits_nothing_is_an_error(pattern: str, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        names(pattern)
    assert str(caught.value).replace(":", "").endswith(f"--exclude {pattern!r} {line}".replace(":", ""))
