# SPDX-License-Identifier: Apache-2.0
"""The floors of the house: a folder imports only folders below it, and only graph_ir knows onnx_ir.

The imports are read from the syntax trees, so lazy ones inside functions and those for types only count too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("graph_ir", "analysis", "passes", "calibration", "backends", "pipeline", "tools")


class Import(NamedTuple):
    """One import: where it stands and the absolute dotted name of what it loads."""

    where: str
    module: str
    relative: bool


def imports(source: str, package: tuple[str, ...], where: str) -> Iterator[Import]:
    """Every import in `source`, a module directly inside `package` (outermost name first).

    `from x import y` gives `x.y`, since y may be a module; a reader of the result looks at prefixes only.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(f"{where}:{node.lineno}", alias.name, relative=False)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *((node.module,) if node.module else ())))
            for alias in node.names:
                yield Import(f"{where}:{node.lineno}", f"{stem}.{alias.name}", relative=node.level > 0)


def in_folder(folder: str) -> list[Import]:
    """Every import in the library folder, with relative names resolved as `tersor.<folder>...`."""
    found: list[Import] = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        place = path.relative_to(ROOT)
        package = ("tersor", *place.parent.parts)
        found += imports(path.read_text(encoding="utf-8"), package, str(place))
    return found


def top(module: str) -> str:
    return module.partition(".")[0]


def test_every_root_package_has_a_floor_and_a_link() -> None:
    packages = {p.parent.name for p in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages == set(FLOORS)
    for folder in FLOORS:
        link = ROOT / "src" / "tersor" / folder
        assert link.is_symlink(), f"{link} must be a link"
        assert link.readlink() == Path("..") / ".." / folder
        assert (link / "__init__.py").is_file()


def test_recipes_are_reached_by_a_link() -> None:
    link = ROOT / "src" / "tersor" / "recipes"
    assert link.readlink() == Path("..") / ".." / "recipes"


@pytest.mark.parametrize("folder", FLOORS)
def test_a_floor_imports_only_floors_below_it(folder: str) -> None:
    allowed = FLOORS[: FLOORS.index(folder) + 1]
    wrong: list[str] = []
    for found in in_folder(folder):
        if top(found.module) != "tersor":
            continue
        reached = found.module.split(".")[1]
        # `from .. import __version__` is the one name of the package itself that all may read.
        if reached in FLOORS and reached not in allowed:
            wrong.append(f"{found.where} imports {found.module}, above {folder}")
        elif reached not in FLOORS and reached != "__version__":
            wrong.append(f"{found.where} imports {found.module}: name the folder it lives in")
    assert not wrong, "\n".join(wrong)


def absolute(folder: str, names: tuple[str, ...]) -> list[str]:
    """Where the folder imports one of `names` (top-level) by its absolute name."""
    found = (i for i in in_folder(folder) if not i.relative and top(i.module) in names)
    return [f"{i.where} imports {i.module}" for i in found]


@pytest.mark.parametrize("folder", FLOORS)
def test_a_floor_is_reached_through_relative_imports(folder: str) -> None:
    assert absolute(folder, ("tersor",)) == []


@pytest.mark.parametrize("folder", [*FLOORS, "tests", "examples", "benchmarks"])
def test_no_second_copy_is_loaded_by_a_bare_folder_name(folder: str) -> None:
    assert absolute(folder, FLOORS) == []


@pytest.mark.parametrize("folder", FLOORS[1:])
def test_only_graph_ir_imports_onnx_ir(folder: str) -> None:
    assert absolute(folder, ("onnx_ir",)) == []


def test_imports_are_resolved_as_python_would() -> None:
    source = """
from . import a
from .b import c
from ...graph_ir import d
import e.f
if x:
    from g import h
"""
    found = [(i.module, i.relative) for i in imports(source, ("tersor", "passes", "fuse"), "x.py")]
    assert found == [
        ("tersor.passes.fuse.a", True),
        ("tersor.passes.fuse.b.c", True),
        ("tersor.graph_ir.d", True),
        ("e.f", False),
        ("g.h", False),
    ]
