# SPDX-License-Identifier: Apache-2.0
"""The distribution holds every module and data file and nothing else, and imports without the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINKS = ("graph_ir", "analysis", "passes", "calibration", "backends", "pipeline", "tools", "recipes")
DATA = ("py.typed", "*.toml", "*.html")

# Modules that only an extra brings; a module of ours may need one of these, and no other, to be imported.
OPTIONAL = ("PIL", "dask", "onnx_graphsurgeon", "tensorrt", "tensorrt_rtx", "torch")

IMPORT_ALL = """
import importlib, pathlib, sys
place, *modules = sys.argv[1:]
sys.path.insert(0, place)
for name in modules:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in OPTIONAL:
            raise
        continue
    assert pathlib.Path(module.__file__).is_relative_to(place), (name, module.__file__)
import tersor
from importlib.metadata import distribution
(script,) = distribution("tersor").entry_points.select(group="console_scripts")
assert script.name == "tersor" and callable(script.load())
assert distribution("tersor").version == tersor.__version__
"""


def expected() -> set[str]:
    """Every file the wheel should hold under `tersor/`, read from the checkout."""
    found = {f"tersor/{path.name}" for path in (ROOT / "src" / "tersor").iterdir() if path.is_file()}
    for folder in LINKS:
        for pattern in ("*.py", *DATA):
            found |= {
                f"tersor/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / folder).rglob(pattern)
            }
    return found


def run(*command: str | Path) -> None:
    """Run the command; what it printed is shown when it fails."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist and the wheel made from it, built from a copy lest stale files be swept in."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for folder in ("src", *LINKS):
        unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=unwanted)
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, copy)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {info.filename for info in archive.infolist() if not info.is_dir()}
    ours = {name for name in files if not name.split("/")[0].endswith(".dist-info")}
    assert ours == expected()
    assert {"tersor/py.typed", "tersor/__main__.py", "tersor/graph_ir/__init__.py"} <= ours
    assert any(name.endswith("/LICENSE") for name in files - ours)


def test_the_sdist_holds_real_files_in_place_of_links(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        members = {member.name.partition("/")[2]: member for member in archive.getmembers()}
    assert not [name for name, member in members.items() if member.issym() or member.islnk()]
    assert {f"src/{name}" for name in expected()} <= set(members)


def test_the_wheel_imports_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        tmp_path,
        wheel,
    )
    assert {p.name for p in tmp_path.iterdir() if not p.name.endswith(".dist-info")} - {"bin"} == {"tersor"}
    modules = sorted(
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in expected()
        if name.endswith(".py")
    )
    # -I: neither the working directory nor PYTHONPATH is on the path, only what is installed.
    run(
        sys.executable,
        "-I",
        "-W",
        "error",
        "-c",
        f"OPTIONAL = {OPTIONAL!r}\n{IMPORT_ALL}",
        tmp_path,
        *modules,
    )
