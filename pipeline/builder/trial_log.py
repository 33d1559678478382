# SPDX-License-Identifier: Apache-2.0
"""The log of a search's trials, by which one that was stopped goes on where it was.

One line of JSON for each candidate that was judged, and for each trial on the way to one, written when it is
known; a build that is given the log again makes the candidate (equal bytes, or it is another one) and takes
the judgement from there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ...analysis.fidelity import Closeness
from ...graph_ir import DataError, UsageError, atomic_write
from ...graph_ir.json_text import parse_object
from .result import Judgement

FORMAT = 1


class TrialLog:
    """Judgements by the digest of the candidate's bytes.

    Args:
        path: of the log; read when it is there, made with the first judgement. None keeps nothing.
        facts: what judgements depend on beside the candidate: model, data, metric and limits, versions.

    Raises:
        UsageError: the file is a log of something else, or none.
    """

    def __init__(self, path: Path | None, facts: dict[str, Any]) -> None:
        self.path = path
        self._key = blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()
        self._known: dict[str, Judgement] = {}
        self._closeness: dict[str, float] = {}
        self.reused = 0
        if path is not None and path.exists():
            self._read(path)

    def get(self, digest: str) -> Judgement | None:
        """What an earlier search said of a candidate; None when it was not tried."""
        found = self._known.get(digest)
        self.reused += found is not None
        return found

    def put(self, digest: str, name: str, judgement: Judgement) -> None:
        """Keep a judgement.

        Raises:
            UsageError: the log cannot be written.
        """
        self._known[digest] = judgement
        self._write({"candidate": name, "digest": digest, "judgement": asdict(judgement)})

    def closeness(self, digest: str) -> float | None:
        """How close an earlier search found what was no candidate yet, in dB; None when it was not tried."""
        return self._closeness.get(digest)

    def put_closeness(self, digest: str, name: str, closeness_db: float) -> None:
        """Keep what is known of a trial that was no candidate yet.

        Raises:
            UsageError: the log cannot be written.
        """
        self._closeness[digest] = closeness_db
        self._write({"trial": name, "digest": digest, "closeness_db": closeness_db})

    def _write(self, line: Mapping[str, Any]) -> None:
        if self.path is None:
            return
        try:
            new = not self.path.exists()
            with self.path.open("a", encoding="utf-8") as file:
                if new:
                    file.write(json.dumps({"tersor-trials": FORMAT, "key": self._key}) + "\n")
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise UsageError(f"--trials {str(self.path)!r} cannot be written: {error.strerror}") from error

    def _read(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
            lines = text.splitlines()
            head = parse_object(lines[0] if lines else "", "its first line")
        except (OSError, UnicodeDecodeError, DataError) as error:
            raise UsageError(f"--trials {str(path)!r} is no log of trials; name another file") from error
        if "tersor-trials" not in head:
            raise UsageError(f"--trials {str(path)!r} is no log of trials; name another file")
        if head != {"tersor-trials": FORMAT, "key": self._key}:
            raise UsageError(
                f"--trials {str(path)!r} is of another model, data, metric, limit or version; "
                "remove it, or name another file"
            )
        for number, line in enumerate(lines[1:], 2):
            try:
                entry = json.loads(line)
                if "trial" in entry:
                    self._closeness[entry["digest"]] = float(entry["closeness_db"])
                else:
                    self._known[entry["digest"]] = _judgement(entry["judgement"])
            except (ValueError, KeyError, TypeError) as error:
                if number < len(lines):
                    raise DataError(
                        f"--trials {str(path)!r}, line {number} is broken; remove the file"
                    ) from error
                del lines[-1]
        if text != "".join(f"{line}\n" for line in lines):
            # The last line was being written when the search was stopped.
            with atomic_write(path) as beside:
                beside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _judgement(data: dict[str, Any]) -> Judgement:
    for field in ("fidelity", "before"):
        data[field] = {name: Closeness(**values) for name, values in data[field].items()}
    return Judgement(**data)
