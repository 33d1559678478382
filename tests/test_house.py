# SPDX-License-Identifier: Apache-2.0
"""House rules that no linter checks: licence lines, file length, printing, what the tools read."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ("graph_ir", "analysis", "passes", "calibration", "backends", "pipeline", "tools")
FOLDERS = (*LIBRARY, "src", "tests", "examples", "benchmarks", "docs")
LONGEST = 300
SPDX = "# SPDX-License-Identifier: Apache-2.0"


def sources() -> list[Path]:
    """Every Python file of ours, once (the links in src/tersor lead to files that are listed already)."""
    found = {path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    ignored = {ROOT / line[1:] for line in (ROOT / ".gitignore").read_text().splitlines() if line[:1] == "/"}
    return sorted(path for path in found - ignored if path.resolve() == path)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {name(path): path.read_text(encoding="utf-8") for path in sources()}


def test_the_library_is_among_the_sources(texts: dict[str, str]) -> None:
    assert {f"{folder}/__init__.py" for folder in LIBRARY} <= set(texts)
    assert "src/tersor/__init__.py" in texts
    assert "src/tersor/passes/__init__.py" not in texts


def test_every_file_states_its_licence(texts: dict[str, str]) -> None:
    stubs = {name(path): path.read_text(encoding="utf-8") for path in (ROOT / "typings").rglob("*.pyi")}
    wrong = [file for file, text in {**texts, **stubs}.items() if not text.startswith(SPDX + "\n")]
    assert not wrong, f"first line must be {SPDX!r}: {wrong}"


def test_every_file_has_a_docstring(texts: dict[str, str]) -> None:
    wrong = [file for file, text in texts.items() if not ast.get_docstring(ast.parse(text))]
    assert not wrong


def test_a_long_file_says_why(texts: dict[str, str]) -> None:
    wrong: list[str] = []
    for file, text in texts.items():
        lines = text.count("\n")
        reason = re.search(r"^Long because", ast.get_docstring(ast.parse(text)) or "", re.MULTILINE)
        if lines > LONGEST and not reason:
            wrong.append(f"{file}: {lines} lines; split it, or begin a docstring line with 'Long because'")
    assert not wrong, "\n".join(wrong)


def test_only_the_command_line_and_scripts_print(texts: dict[str, str]) -> None:
    wrong: list[str] = []
    for file, text in texts.items():
        if file.startswith(("tools/", "examples/", "benchmarks/")):
            continue
        wrong += [
            f"{file}:{node.lineno}"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        ]
    assert not wrong


def test_pyright_is_told_of_every_link() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    read = settings["tool"]["pyright"]["include"]
    assert {f"src/tersor/{folder}" for folder in LIBRARY} <= set(read)


def test_lowest_constraints_follow_the_declared_bounds() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared: dict[str, str] = {}
    for requirement in settings["project"]["dependencies"]:
        found = re.match(r"([\w-]+)>=([\w.]+)", requirement)
        assert found, f"no lower bound: {requirement}"
        declared[found[1].lower().replace("_", "-")] = found[2]
    pinned: dict[str, str] = {}
    for line in (ROOT / "constraints" / "lowest.txt").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"([\w-]+)==([\w.]+)", line):
            pinned[found[1].lower().replace("_", "-")] = found[2]
    for package, lowest in declared.items():
        assert pinned[package] == lowest, (
            f"{package}: {lowest} in pyproject.toml, {pinned[package]} in lowest.txt"
        )
