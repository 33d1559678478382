# SPDX-License-Identifier: Apache-2.0
"""The table of passes agrees with the classes, and plug-ins come in by entry points."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import fields, is_dataclass
from importlib.metadata import EntryPoint
from inspect import get_annotations
from typing import Any

import pytest

from tersor.graph_ir import UsageError
from tersor.passes import catalog
from tersor.passes.base import Exactness, Pass


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    found = {
        "their-pass": "tests.support.passes:CountDown",
        "no-module": "tests.support.nothing:Nothing",
        "no-class": "tests.support.passes:Nothing",
        "no-pass": "tests.support.passes:Scheme",
    }
    points = [EntryPoint(name, value, catalog.ENTRY_POINTS) for name, value in found.items()]

    def entry_points(group: str) -> list[EntryPoint]:
        return points if group == catalog.ENTRY_POINTS else []

    monkeypatch.setattr(catalog, "entry_points", entry_points)
    cached: Any = vars(catalog)["_plugins"]
    cached.cache_clear()
    yield
    cached.cache_clear()


@pytest.mark.parametrize("name", sorted(catalog.TABLE))
def test_each_line_of_the_table_names_a_documented_frozen_pass(name: str) -> None:
    found = catalog.get(name)
    assert found.name == name
    assert isinstance(found.exact, Exactness)
    assert is_dataclass(found)
    assert found.__dataclass_params__.frozen  # pyright: ignore[reportAttributeAccessIssue]
    assert found.summary().endswith(".")
    assert found.__doc__ != Pass.__doc__
    assert len(found.__doc__ or "") > len(found.summary()) + 40 or not fields(found)


@pytest.mark.parametrize("name", sorted(catalog.TABLE))
def test_what_a_pass_annotates_is_an_option(name: str) -> None:
    """A class that is not decorated as a dataclass again would keep an option as a class attribute."""
    found = catalog.get(name)
    own = {n for n, kind in get_annotations(found).items() if "ClassVar" not in str(kind)}
    assert own <= {field.name for field in fields(found)}


def test_names_are_sorted_and_complete() -> None:
    assert catalog.names() == sorted(catalog.names())
    assert set(catalog.TABLE) <= set(catalog.names())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fold-constant", "did you mean .*fold-constants"),
        ("zzz", "no pass is called 'zzz'; see `tersor passes`"),
        ("", "no pass is called ''"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        catalog.get(name)


@pytest.mark.usefixtures("plugins")
def test_plug_ins_are_listed_and_loaded() -> None:
    assert "their-pass" in catalog.names()
    assert catalog.get("their-pass").name == "count-down"
    assert catalog.get("cse").name == "cse"


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no-module", "plug-in pass 'no-module' .* cannot be loaded: No module"),
        ("no-class", "plug-in pass 'no-class' .* cannot be loaded: .*Nothing"),
        ("no-pass", "plug-in 'no-pass' is not a Pass"),
    ],
)
def test_broken_plug_ins_are_named(name: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        catalog.get(name)
