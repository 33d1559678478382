# SPDX-License-Identifier: Apache-2.0
"""`tersor passes`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import typer

from .options import AsJson

if TYPE_CHECKING:
    from ..passes.base import Pass


def command(
    name: str | None = typer.Argument(
        None, metavar="NAME", help="The pass to explain; all are listed without it."
    ),
    as_json: AsJson = False,
) -> None:
    r"""List the passes, or explain one.

    For example:

    \b
      tersor passes                      all passes and what each claims
      tersor passes fold-constants       its algebra, its options, what it requires
      tersor passes --json

    A claim says how far a pass may move the numbers: bitwise (the same bits), rounding (the same real
    numbers, differently rounded), lossy (an approximation within the limits you give). `tersor opt --validate
    pass` checks it.
    """
    from ..passes import catalog
    from .render import print_json, print_table

    if name is not None:
        found = describe(catalog.get(name))
        print_json(found) if as_json else _explain(found)
        return
    listed = [describe(catalog.get(each)) for each in catalog.names()]
    if as_json:
        print_json(listed)
        return
    rows = [(entry["name"], entry["exact"], entry["summary"]) for entry in listed]
    print_table(["pass", "claim", "what it does"], rows)


def describe(pass_class: type[Pass]) -> dict[str, Any]:
    """Everything a pass says about itself, as plain data."""
    from ..pipeline.options import describe_type, options_of, write

    return {
        "name": pass_class.name,
        "exact": pass_class.exact.value,
        "summary": pass_class.summary(),
        "doc": inspect.cleandoc(pass_class.__doc__ or ""),
        "requires": [each.name for each in pass_class.requires],
        "ensures": [each.name for each in pass_class.ensures],
        "needs_facts": list(pass_class.needs_facts),
        "changes_signature": pass_class.changes_signature,
        "options": [
            {
                "name": option.name,
                "type": describe_type(option.type),
                "bounds": option.bounds or None,
                "required": option.required,
                "default": None if option.required else write(option.type, option.default),
            }
            for option in options_of(pass_class).values()
        ],
    }


def takes(option: dict[str, Any]) -> str:
    """Of an option that `describe` gives, the type and its bounds: "int, at least 1"."""
    return ", ".join(filter(None, (option["type"], option["bounds"])))


def _explain(found: dict[str, Any]) -> None:
    from .render import print_table

    print(f"{found['name']} ({found['exact']})\n\n{found['doc']}\n")
    for key, title in (("requires", "requires"), ("ensures", "ensures"), ("needs_facts", "needs measured")):
        if found[key]:
            print(f"{title}: {', '.join(found[key])}")
    if found["changes_signature"]:
        print("changes the model's inputs or outputs")
    if not found["options"]:
        print("no options")
        return
    rows = [
        (option["name"], takes(option), "(must be given)" if option["required"] else option["default"])
        for option in found["options"]
    ]
    print_table(["option", "type", "default"], rows)
    example = " ".join(f"{o['name']}={o['default'] or '...'}" for o in found["options"][:1])
    print(f"\nfor example: --passes '{found['name']}{{{example}}}'")
