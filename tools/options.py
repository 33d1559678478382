# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have alike."""

from __future__ import annotations

from typing import Annotated

import typer

_data = typer.Option(
    metavar="DATA", help=".npz, a folder of .npz or .npy, module:function, or random by name."
)

Data = Annotated[str, _data]
MaybeData = Annotated["str | None", _data]
Top = Annotated[int, typer.Option(min=1, help="Show so many rows.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

TOP = 20
