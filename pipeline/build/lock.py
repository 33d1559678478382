# SPDX-License-Identifier: Apache-2.0
"""`build.lock.json`: what a build depended on, so that it can be made again and told apart."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ...backends.onnxruntime.cpu import host
from ...calibration.data import Feeds
from ...graph_ir import atomic_write, load
from ..recipe import Recipe, load_recipe
from .files import model_files
from .result import BuildResult
from .settings import BuildSettings

LOCK_FILE = "build.lock.json"
_PACKAGES = ("onnx", "onnx-ir", "onnxruntime", "numpy", "ml_dtypes", "networkx")
_CHUNK = 1 << 20


def write_lock(result: BuildResult, settings: BuildSettings, feeds: Feeds | None) -> None:
    """Write the lock file into the output folder."""
    data: dict[str, Any] = {
        "lock": 1,
        "model": {"file": settings.model.name, "blake2b": _hash_model(settings.model)},
        "result": {"file": result.winner.path.name, "blake2b": _hash_model(result.winner.path)},
        "data": None if feeds is None else {"source": feeds.source, "blake2b": feeds.digest()},
        "recipe": None if settings.recipe is None else _recipe(load_recipe(settings.recipe), settings),
        "pipeline": result.winner.pipeline,
        "observer": result.winner.observer,
        "seed": settings.seed,
        "metric": settings.metric,
        "max_drop": settings.max_drop,
        "code": code_hash(),
        "versions": {
            "tersor": import_module(__name__.partition(".")[0]).__version__,
            **{name: _version(name) for name in _PACKAGES},
            "python": platform.python_version(),
        },
        "host": host().to_dict(),
    }
    with atomic_write(settings.out / LOCK_FILE) as beside:
        beside.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _recipe(recipe: Recipe, settings: BuildSettings) -> dict[str, Any]:
    """A recipe's text, and the data it names itself, whatever the command line gives."""
    model = load(settings.model)
    sections = {name: section.open(model) for name, section in recipe.data.items()}
    return {
        "blake2b": hash_text(recipe.text),
        "data": {n: {"source": feeds.source, "blake2b": feeds.digest()} for n, feeds in sections.items()},
    }


def hash_files(paths: list[Path]) -> str:
    """32 hex digits over the content of files, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def hash_text(text: str) -> str:
    """32 hex digits over a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def code_hash() -> str:
    """32 hex digits over tersor's own sources, in the order of their names."""
    root = Path(__file__).parents[2]
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _hash_model(path: Path) -> str:
    return hash_files(model_files(load(path), path))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
