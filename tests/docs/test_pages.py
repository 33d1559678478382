# SPDX-License-Identifier: Apache-2.0
"""The documentation holds: what it shows runs on the digits example, its links lead somewhere."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tersor.passes import catalog
from tersor.passes.catalog import _plugins  # pyright: ignore[reportPrivateUsage]
from tersor.pipeline.builder import BuildResult
from tersor.pipeline.prune.report import PruneReport
from tersor.tools.optimize import Report
from tests.support.pages import Place, blocks, commands, links

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [
    str(path.relative_to(ROOT))
    for path in (
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        ROOT / "benchmarks" / "README.md",
        ROOT / "examples" / "digits" / "README.md",
    )
]
# Those whose blocks are only shown: benchmarks need models that are not part of the checkout.
SHOWN = ("benchmarks/", "examples/", "docs/decisions/", "docs/figures.md", "docs/forms.md")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("checkout").resolve()
    shutil.copytree(
        ROOT / "examples" / "digits",
        root / "examples" / "digits",
        ignore=shutil.ignore_patterns("__pycache__", "out*"),
    )
    return Place(root, ROOT / "src")


@pytest.fixture
def clean_modules(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules that a page wrote or named are forgotten after it, and so are plug-ins."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    _plugins.cache_clear()
    for name in set(sys.modules) - before:
        home = getattr(sys.modules[name], "__file__", None) or ""
        if Path(home).is_relative_to(place.root):
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.mark.usefixtures("clean_modules")
@pytest.mark.parametrize("name", [page for page in PAGES if not page.startswith(SHOWN)])
def test_what_a_page_shows_runs(name: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    here = place.root
    names: dict[str, Any] = {"__name__": "__page__"}
    printed = ""
    for block in blocks(read(name)):
        monkeypatch.chdir(here)
        if block.file:
            (here / block.file).write_text(block.text, encoding="utf-8")
            if block.file == "pyproject.toml":
                install(here, block.text)
            importlib.invalidate_caches()
        elif block.language == "sh":
            printed, here = place.shell(block.text, here)
        elif block.language == "python":
            printed = place.python(block, name, names)
        elif "exact" in block.words:
            assert _lines(printed) == _lines(block.text), f"{name}, line {block.line}"


def install(folder: Path, project: str) -> None:
    """Make the folder look as if the project in it was installed, for entry points to be found."""
    table = tomllib.loads(project)["project"]
    home = folder / f"{table['name'].replace('-', '_')}-{table['version']}.dist-info"
    home.mkdir()
    (home / "METADATA").write_text(f"Name: {table['name']}\nVersion: {table['version']}\n", encoding="utf-8")
    points = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in table["entry-points"].items()
    ]
    (home / "entry_points.txt").write_text("\n".join(points), encoding="utf-8")
    sys.path.insert(0, str(folder))
    _plugins.cache_clear()


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    base = (ROOT / name).parent
    inside = [link.partition("#")[0] for link in links(read(name)) if "://" not in link]
    missing = [link for link in inside if link and not (base / link).exists()]
    assert not missing


def test_commands_are_joined_and_comments_left_out() -> None:
    assert commands("# first\ntersor opt a b \\\n  --stats\n\nls\n") == ["tersor opt a b    --stats", "ls"]


@pytest.mark.parametrize("result", [Report, BuildResult, PruneReport])
def test_the_page_on_python_names_every_field(result: type[Any]) -> None:
    page = read("docs/python.md")
    assert [each.name for each in fields(result) if f"`{each.name}`" not in page] == []


def test_the_page_of_passes_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_passes", ROOT / "docs" / "make_passes.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text: str = module.page()
    assert read("docs/passes.md") == text, "run `python docs/make_passes.py`"
    assert [name for name in catalog.TABLE if f"\n### {name}\n" not in text] == []
