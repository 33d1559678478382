# SPDX-License-Identifier: Apache-2.0
"""Help with the options under headings, where a command gives its options some (`rich_help_panel`)."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

DEBUG = ("--debug", "Show the trace of an error.")  # taken by `cli.run` wherever it stands


class SectionedCommand(TyperCommand):
    """A command whose help has a section for each heading, in order of first use, without rich."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then options by heading; those without one come last."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        plain: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            heading = getattr(param, "rich_help_panel", None)
            if record is None:
                continue
            if param.param_type_name == "argument":
                sections["Arguments"].append(
                    (record[0].partition(" <")[0], record[1])
                )  # its type says no more
            elif heading:
                sections.setdefault(heading, []).append(record)
            else:
                plain.append(record)
        plain.insert(len(plain) - 1, DEBUG)  # the last is --help
        sections["Other options" if len(sections) > 1 else "Options"] = plain
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
