# SPDX-License-Identifier: Apache-2.0
"""`build.lock.json`: what a build depended on and shipped, so that it can be made again and told apart."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from ...backends.onnxruntime.cpu import host
from ...calibration.data import Feeds
from ...graph_ir import CheckError, UsageError, atomic_write, load
from ...graph_ir.json_text import read_object
from ..recipe import Recipe, load_recipe
from .files import model_files
from .form import Dynamic, Form, form_of
from .result import BuildResult
from .settings import BuildSettings

LOCK_FILE = "build.lock.json"
_VERSION = 1
_PACKAGES = ("onnx", "onnx-ir", "onnxruntime", "numpy", "ml_dtypes", "networkx")
_READ = (
    "model", "data", "recipe", "passes", "samples", "seed", "metric",
    "result", "shipped", "code", "versions", "host",
)  # fmt: skip
_CHUNK = 1 << 20


def write_lock(result: BuildResult, settings: BuildSettings, feeds: Feeds | None) -> None:
    """Write the lock file into the output folder."""
    form = result.winner.form
    data: dict[str, Any] = {
        "lock": _VERSION,
        **_inputs(settings, feeds),
        "result": {"file": result.winner.path.name, "blake2b": _hash_model(result.winner.path)},
        "shipped": {"name": result.winner.name, "form": None if form is None else form.to_dict()},
        "pipeline": result.winner.pipeline,
        "observer": result.winner.observer,
        "max_drop": settings.max_drop,
        **_makers(),
    }
    with atomic_write(settings.out / LOCK_FILE) as beside:
        beside.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _inputs(settings: BuildSettings, feeds: Feeds | None) -> dict[str, Any]:
    """What the user gave, as far as it tells what is made."""
    return {
        "model": {"file": settings.model.name, "blake2b": _hash_model(settings.model)},
        "data": None if feeds is None else {"source": feeds.source, "blake2b": feeds.digest()},
        "recipe": None if settings.recipe is None else _recipe(load_recipe(settings.recipe), settings),
        "passes": settings.passes,
        "samples": settings.samples,
        "seed": settings.seed,
        "metric": settings.metric,
    }


def _makers() -> dict[str, Any]:
    """What makes it."""
    return {
        "code": code_hash(),
        "versions": {
            "tersor": import_module(__name__.partition(".")[0]).__version__,
            **{name: _version(name) for name in _PACKAGES},
            "python": platform.python_version(),
        },
        "host": host().to_dict(),
    }


@dataclass(frozen=True)
class Lock:
    """A lock file that was read, by which a build makes again what was shipped.

    Attributes:
        path: of the file.
        data: of its content what is read.
        form: what the shipped model is made of; None where that is no int8 form of a search.
    """

    path: Path
    data: Mapping[str, Any]
    form: Form | Dynamic | None

    @property
    def name(self) -> str:
        """Of the candidate that was shipped."""
        return self.data["shipped"]["name"]

    def check_inputs(self, settings: BuildSettings, feeds: Feeds | None) -> None:
        """Refuse to build from anything else.

        Raises:
            UsageError: naming what differs.
        """
        where, given = f"--lock {str(self.path)!r}", _inputs(settings, feeds)
        for key in ("passes", "samples", "seed", "metric"):
            if self.data[key] != given[key]:
                both = (self.data[key], given[key])
                then, now = (f"no --{key}" if value is None else f"--{key} {value}" for value in both)
                raise UsageError(f"{where} is of a build with {then}, and this one has {now}")
        for key in ("data", "recipe"):
            if (self.data[key] is None) != (given[key] is None):
                word = "without" if self.data[key] is None else "with"
                raise UsageError(f"{where} is of a build {word} --{key}; give the same options")
        for key in ("model", "data", "recipe"):
            if _hashes(self.data[key]) != _hashes(given[key]):
                raise UsageError(f"{where} is of a build of another {key}: its content differs")

    def check_result(self, path: Path) -> None:
        """Refuse a model of other bytes.

        Args:
            path: of the model, under the name and with the files that it is shipped with.

        Raises:
            CheckError: it is another; what else has changed since is named.
        """
        if _hash_model(path) == self.data["result"]["blake2b"]:
            return
        changed = self.since()
        changed = f"what differs since: {changed}" if changed else "nothing known differs since"
        raise CheckError(
            f"what is made of {self.name!r} is not the model that {str(self.path)!r} is of; {changed}"
        )

    def since(self) -> str:
        """What of that which makes models is not as it was: code, versions, host; empty where nothing is."""
        now = _makers()
        was: dict[str, dict[str, Any]] = {key: self.data[key] for key in ("versions", "host")}
        since = ["tersor's code"] if self.data["code"] != now["code"] else []
        since += [
            f"{name} {_shown(was[key].get(name))} (now {_shown(value)})"
            for key in was
            for name, value in now[key].items()
            if was[key].get(name) != value
        ]
        return ", ".join(since)

    def check_stands(self, failure: str) -> None:
        """Raises CheckError where what was made again misses a limit or a check: `failure` says which."""
        if failure:
            raise CheckError(f"{self.name!r}, as {str(self.path)!r} says, does not hold here: {failure}")


def _shown(value: object) -> str:
    """A version or a fact of a host, for people."""
    return " ".join(map(str, cast("list[object]", value))) if isinstance(value, list) else str(value)


def read_lock(path: Path) -> Lock:
    """Read a lock file.

    Raises:
        UsageError: it is none, or none that a build can be made again from.
    """
    found = read_object(path, f"--lock {str(path)!r}", UsageError)
    try:
        return _lock_of(path, found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"--lock {str(path)!r} is no {LOCK_FILE} of this version of tersor") from error
    except UsageError as error:
        raise UsageError(f"--lock {str(path)!r}: {error}") from error


def _lock_of(path: Path, found: dict[str, Any]) -> Lock:
    data = {key: found[key] for key in _READ}
    data |= {key: dict(data[key]) for key in ("result", "shipped", "versions", "host")}
    name, form = data["shipped"]["name"], data["shipped"]["form"]
    lock = Lock(path, data, None if form is None else form_of(form))
    for key in ("model", "data", "recipe", "result"):
        _hashes(data[key])
    named = isinstance(name, str) and (lock.form is None or lock.form.name == name)
    if found["lock"] != _VERSION or not named:
        raise ValueError
    return lock


def _hashes(section: Mapping[str, Any] | None) -> list[Any]:
    """The hashes of a section and of those within it; not where things lie."""
    if section is None:
        return []
    return [section["blake2b"], *(_hashes(each) for each in section.get("data", {}).values())]


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
