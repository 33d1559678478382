# SPDX-License-Identifier: Apache-2.0
"""Writes docs/passes.md from the passes themselves: claim, docstring, options.

python docs/make_passes.py            # after any change of a pass; a test compares the file with the code
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tersor.passes import catalog
from tersor.tools.passes_cmd import describe, takes

PAGE = Path(__file__).resolve().parent / "passes.md"
TITLES = {
    "clean": "Clean: remove, fold, share",
    "fuse": "Fuse: fewer and larger operators",
    "layout": "Layout: move transposes",
    "quantize": "Quantize: int8 and other narrow weights",
    "precision": "Precision: other floats",
    "prune": "Prune: remove channels",
}
HEAD = """\
# Passes

Written by `docs/make_passes.py` from the passes themselves; do not edit by hand. `tersor passes NAME` shows
the same.

The claim says how far a pass may move the numbers:

- **bitwise**: the same bits for every input.
- **rounding**: the same real numbers, differently rounded.
- **lossy**: an approximation, within limits you give.

`tersor opt --validate pass` holds each pass to its claim. How passes are put together is in
[pipeline.md](pipeline.md), how to write one in [writing-a-pass.md](writing-a-pass.md).
"""


def page() -> str:
    """The text of docs/passes.md, for the passes that tersor itself has."""
    parts = [HEAD]
    for folder, title in TITLES.items():
        names = sorted(name for name, home in catalog.TABLE.items() if home.startswith(f"{folder}."))
        if not names:
            continue
        entries = [describe(catalog.get(name)) for name in names]
        rows = [f"| [{e['name']}](#{e['name']}) | {e['exact']} | {_cell(e['summary'])} |" for e in entries]
        table = ["| pass | claim | what it does |", "| --- | --- | --- |", *rows]
        parts.append("\n".join([f"## {title}", "", *table, ""]))
        parts += [_entry(entry) for entry in entries]
    return "\n".join(parts)


def _entry(found: dict[str, Any]) -> str:
    summary, _, rest = found["doc"].partition("\n")
    lines = [f"### {found['name']}", "", f"{summary} Claim: {found['exact']}.", ""]
    if rest.strip():
        lines += ["```text", rest.strip("\n"), "```", ""]
    for key, title in (("requires", "Requires"), ("ensures", "Ensures"), ("needs_facts", "Needs measured")):
        if found[key]:
            lines += [f"{title}: {', '.join(found[key])}.", ""]
    if found["changes_signature"]:
        lines += ["It changes the model's inputs or outputs.", ""]
    if found["options"]:
        lines += ["| option | type | default |", "| --- | --- | --- |"]
        for o in found["options"]:
            default = "must be given" if o["required"] else f"`{o['default']}`"
            lines.append(f"| `{o['name']}` | {_cell(takes(o))} | {default} |")
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.name}\n")
