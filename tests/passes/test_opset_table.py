# SPDX-License-Identifier: Apache-2.0
"""The table of compatible redefinitions against the schemas of the onnx package."""

from __future__ import annotations

from functools import cache

import onnx
from onnx.defs import OpSchema

from tersor.passes.opset_steps import STEPS
from tersor.passes.opset_table import COMPATIBLE, NEWEST, OLDEST


@cache
def histories() -> dict[str, list[OpSchema]]:
    found: dict[str, list[OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            found.setdefault(schema.name, []).append(schema)
    return {name: sorted(schemas, key=lambda s: s.since_version) for name, schemas in found.items()}


def types(schema: OpSchema, port: OpSchema.FormalParameter) -> set[str]:
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    return allowed.get(port.type_str, {port.type_str})


def default(attribute: OpSchema.Attribute) -> object:
    given = attribute.default_value
    return onnx.helper.get_attribute_value(given) if given.name else None


def narrowed(old: OpSchema, new: OpSchema) -> list[str]:
    """In what way the newer definition refuses what the older one took."""
    found = ["deprecated"] if new.deprecated else []
    for name, attribute in old.attributes.items():
        now = new.attributes.get(name)
        if now is None or now.type != attribute.type or default(now) != default(attribute):
            found.append(f"attribute {name}")
    found += [f"required {n}" for n, a in new.attributes.items() if a.required and n not in old.attributes]
    if new.min_input > old.min_input or len(new.inputs) < len(old.inputs):
        found.append("inputs")
    if len(new.outputs) < len(old.outputs):
        found.append("outputs")
    ports = [*zip(old.inputs, new.inputs, strict=False), *zip(old.outputs, new.outputs, strict=False)]
    found += [f"types of {a.name}" for a, b in ports if not types(old, a) <= types(new, b)]
    return found


def test_every_compatible_redefinition_only_allows_more() -> None:
    assert len(COMPATIBLE) > 200
    for name, version in sorted(COMPATIBLE):
        schemas = histories()[name]
        place = [s.since_version for s in schemas].index(version)
        assert place > 0, f"{name} is new in {version}"
        assert narrowed(schemas[place - 1], schemas[place]) == [], f"{name} {version}"


def test_every_redefinition_with_another_form_has_a_step_or_is_refused() -> None:
    refused: set[tuple[str, int]] = set()
    for name, schemas in histories().items():
        versions = [s.since_version for s in schemas]
        later = {(name, v) for v in versions[1:] if OLDEST < v <= NEWEST}
        assert not later & COMPATIBLE & set(STEPS)
        refused |= later - COMPATIBLE - set(STEPS)
    # An older onnx does not know the newest of them.
    known = {(name, s.since_version) for name, schemas in histories().items() for s in schemas}
    assert refused == known & {
        ("Scan", 9),
        ("MaxUnpool", 11),
        ("OneHot", 11),
        ("DFT", 20),
        ("GroupNormalization", 21),
        ("Attention", 24),
        ("Attention", 25),
    }
