# SPDX-License-Identifier: Apache-2.0
"""`session.json`: the options with which an emitted model wants its session made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ...graph_ir.errors import DataError
from ...graph_ir.io import atomic_write
from ...graph_ir.json_text import parse_object, read_text

SESSION_FILE = "session.json"


@dataclass(frozen=True)
class SessionConfig:
    """Session config entries, and graph optimizers to switch off; empty when a default session is best.

    In the file: `{"config": {key: value}, "disabled_optimizers": [name, ...]}`, both keys always there.
    """

    config: Mapping[str, str] = field(default_factory=dict[str, str])
    disabled_optimizers: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The file's text: keys sorted, one trailing newline."""
        return (
            json.dumps(
                {
                    "config": dict(sorted(self.config.items())),
                    "disabled_optimizers": list(self.disabled_optimizers),
                },
                indent=2,
            )
            + "\n"
        )

    @classmethod
    def from_json(cls, text: str, where: str = SESSION_FILE) -> SessionConfig:
        """Parse the file's text.

        Raises:
            DataError: when it is not JSON, has other keys, or values of other types.
        """
        table = parse_object(text, where)
        unknown = sorted(set(table) - {"config", "disabled_optimizers"})
        if unknown:
            raise DataError(
                f"{where} has the unknown key {unknown[0]!r}; it takes `config` and `disabled_optimizers`"
            )
        config: Any = table.get("config", {})
        off: Any = table.get("disabled_optimizers", [])
        if not isinstance(config, dict) or not all(
            isinstance(v, str) for v in cast("dict[str, object]", config).values()
        ):
            raise DataError(f"{where}: `config` must map option names to strings")
        if not isinstance(off, list) or not all(isinstance(v, str) for v in cast("list[object]", off)):
            raise DataError(f"{where}: `disabled_optimizers` must be a list of optimizer names")
        return cls(cast("dict[str, str]", config), tuple(cast("list[str]", off)))

    def save(self, path: Path) -> None:
        """Write the file, beside and renamed."""
        with atomic_write(path) as beside:
            beside.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> SessionConfig:
        """Read the file; no file means a default session.

        Raises:
            DataError: when the file cannot be read or is not of the described form.
        """
        where = repr(str(path))
        return cls.from_json(read_text(path, where), where) if path.exists() else cls()

    @classmethod
    def beside(cls, model: Path) -> SessionConfig:
        """The config that lies beside a model file (`session.json` in its folder), or a default one."""
        return cls.load(model.parent / SESSION_FILE)
