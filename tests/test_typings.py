# SPDX-License-Identifier: Apache-2.0
"""The local stubs in typings/ speak of things that exist: the installed package has every name in them."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

TYPINGS = Path(__file__).resolve().parent.parent / "typings"
STUBS = sorted(str(path.relative_to(TYPINGS)) for path in TYPINGS.rglob("*.pyi"))

# Set in the constructor rather than on the class, so they cannot be seen without an object.
ON_OBJECTS = {"onnx_graphsurgeon"}
EXTRAS = {"torch"}  # need not be installed to work on the rest


def names(body: Sequence[ast.stmt]) -> Iterator[str]:
    """The public names that the statements define."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id
        elif isinstance(statement, ast.Assign):
            yield from (target.id for target in statement.targets if isinstance(target, ast.Name))


@pytest.mark.parametrize("stub", STUBS)
def test_every_name_of_a_stub_exists(stub: str) -> None:
    place = Path(stub)
    dotted = ".".join((*place.parent.parts, *(() if place.stem == "__init__" else (place.stem,))))
    module = pytest.importorskip(dotted) if place.parts[0] in EXTRAS else importlib.import_module(dotted)
    body = ast.parse((TYPINGS / place).read_text(encoding="utf-8")).body
    missing = [name for name in names(body) if not name.startswith("_DType") and not hasattr(module, name)]
    for statement in body:
        if not isinstance(statement, ast.ClassDef) or not hasattr(module, statement.name):
            continue
        members: Sequence[ast.stmt] = statement.body
        if place.parts[0] in ON_OBJECTS:
            members = [member for member in members if isinstance(member, ast.FunctionDef)]
        owner = getattr(module, statement.name)
        missing += [f"{statement.name}.{name}" for name in names(members) if not hasattr(owner, name)]
    assert not missing
