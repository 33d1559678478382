# SPDX-License-Identifier: Apache-2.0
"""`tersor inspect`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .options import AsJson

if TYPE_CHECKING:
    from ..graph_ir import Model, Value

_LEFT_OUT_SHOWN = 5


def command(
    model: Path = typer.Argument(..., exists=True, metavar="MODEL", help="The model."),
    *,
    dim: list[str] = typer.Option(
        [], metavar="NAME=SIZE", help="Size of a free dimension; without it 1 of a first axis, 64 of others."
    ),
    nodes: bool = typer.Option(False, "--nodes", help="Show what each node costs, the costliest first."),
    as_json: AsJson = False,
) -> None:
    r"""Show what a model holds: inputs, operators, weights, work, memory.

    For example:

    \b
      tersor inspect model.onnx
      tersor inspect model.onnx --dim N=8 --dim T=128
      tersor inspect model.onnx --nodes
      tersor inspect model.onnx --json | jq .macs

    MACs are multiply-accumulates of one run; peak memory is that of activations in the order the nodes stand,
    without reuse in place. What cannot be counted is listed and left out.
    """
    from ..graph_ir import load
    from .progress import Progress
    from .render import print_json

    sizes = read_dims(dim)
    with Progress(f"reading {model.name}"):
        found = describe(load(model), sizes, model)
    print_json(found) if as_json else _print(found, nodes=nodes)


def read_dims(given: list[str]) -> dict[str, int]:
    """Sizes of dimensions from `NAME=SIZE` texts.

    Raises:
        UsageError: a text of another form, or a second size of a dimension.
    """
    from ..graph_ir import UsageError

    sizes: dict[str, int] = {}
    for text in given:
        name, _, size = text.rpartition("=")
        if not name or not size.isdecimal() or int(size) < 1:
            raise UsageError(f"--dim takes NAME=SIZE, for example --dim N=8, not {text!r}")
        if name in sizes:
            raise UsageError(f"--dim {text!r}: the size of {name!r} is given already")
        sizes[name] = int(size)
    return sizes


def describe(model: Model, sizes: dict[str, int], path: Path) -> dict[str, Any]:
    """Everything that is shown, as plain data."""
    from ..analysis.cost import cost
    from ..calibration.axes import free_sizes
    from ..graph_ir import UsageError, notes, signature_of
    from ..graph_ir.ops import dims
    from ..graph_ir.targets import external_files
    from .optimize import count_ops, default_notes, opaque_notes

    given = [(v.name, i, d) for v in model.graph.inputs for i, d in enumerate(dims(v) or ())]
    # A dimension without a name goes by its input and axis.
    unnamed = {f"{name}.{i}": f"?{name}.{i}" for name, i, d in given if d is None}
    free = {d: d for _, _, d in given if isinstance(d, str)} | unnamed
    taken = free_sizes(signature_of(model))
    table = cost(model, bindings={**taken, **{free[n]: size for n, size in sizes.items() if n in free}})
    unknown = sorted(set(sizes) - set(free))
    if unknown:
        there = f"it has {', '.join(sorted(free))}" if free else "all are fixed"
        raise UsageError(f"no free dimension of an input is called {unknown[0]!r}; {there}")
    files = external_files(model)
    return {
        "model": str(path),
        "ir_version": model.ir_version,
        "opsets": {domain or "ai.onnx": version for domain, version in sorted(model.opset_imports.items())},
        "producer": " ".join(part for part in (model.producer_name, model.producer_version) if part),
        "file_bytes": sum(file.stat().st_size for file in (path, *files)),
        "external_files": [file.name for file in files],
        "inputs": [_port(v) for v in model.graph.inputs if not v.is_initializer()],
        "inputs_with_default": [v.name for v in model.graph.inputs if v.is_initializer()],
        "outputs": [_port(v) for v in model.graph.outputs],
        "functions": len(model.functions),
        "ops": dict(count_ops(model).most_common()),
        "parameters": table.parameters,
        "parameter_bytes": table.parameter_bytes,
        "weight_types": _weight_types(model),
        "macs": table.macs,
        "macs_unknown_nodes": table.uncounted,
        "bytes_moved": table.bytes_moved,
        "peak_activation_bytes": table.peak_activation_bytes,
        "peak_node": table.peak_node,
        "assumed_sizes": {
            name: taken[key] for name, key in free.items() if key in taken and name not in sizes
        },
        "assumed_inside": len(table.assumed),
        "costs": [
            {
                "node": n.name,
                "op": n.op,
                "macs": n.macs,
                "parameters": n.parameters,
                "bytes_moved": n.bytes_moved,
            }
            for n in table.nodes
        ],
        "notes": [*notes(model), *default_notes(model), *opaque_notes(model)],
        "not_counted": [f"{name}: {reason}" for name, reason in table.notes],
    }


def _port(value: Value) -> dict[str, Any]:
    from ..graph_ir.ops import dims

    shape = dims(value)
    return {
        "name": value.name,
        "type": "?" if value.dtype is None else value.dtype.name.lower(),
        "shape": None if shape is None else list(shape),
    }


def _weight_types(model: Model) -> dict[str, dict[str, int]]:
    """Number of initializers and bytes by element type, in all graphs."""
    from ..graph_ir.ops import walk_graphs

    tensors: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for graph in walk_graphs(model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                kind = value.const_value.dtype.name.lower()
                tensors[kind] += 1
                sizes[kind] += value.const_value.nbytes
    return {kind: {"tensors": count, "bytes": sizes[kind]} for kind, count in tensors.most_common()}


def _print(found: dict[str, Any], *, nodes: bool) -> None:
    from .render import macs, plural, print_table, quantity, size

    opsets = ", ".join(f"{domain} {version}" for domain, version in found["opsets"].items())
    external = f" with {', '.join(found['external_files'])}" if found["external_files"] else ""
    print(f"{found['model']}: {size(found['file_bytes'])}{external}")
    made = f", made by {found['producer']}" if found["producer"] else ""
    print(f"IR {found['ir_version']}, opset {opsets}{made}\n")
    ports = [
        (kind, port["name"], port["type"], _shape_text(port["shape"]))
        for kind, key in (("input", "inputs"), ("output", "outputs"))
        for port in found[key]
    ]
    print_table(["", "name", "type", "shape"], ports)
    total = sum(found["ops"].values())
    functions = f", {plural(found['functions'], 'function')}" if found["functions"] else ""
    print(f"\n{plural(total, 'node')}{functions}")
    print_table(["operator", "count"], list(found["ops"].items()))
    weights = [(kind, w["tensors"], size(w["bytes"])) for kind, w in found["weight_types"].items()]
    if weights:
        print()
        print_table(["weights", "tensors", "bytes"], weights)
    print(f"\nparameters       {quantity(found['parameters'])} ({size(found['parameter_bytes'])})")
    print(f"MACs             {macs(found['macs'], found['macs_unknown_nodes'])}")
    print(f"bytes moved      {size(found['bytes_moved'])}")
    print(f"peak activations {size(found['peak_activation_bytes'])} at {found['peak_node'] or 'the inputs'}")
    if nodes:
        ranked = sorted(found["costs"], key=lambda n: -(n["macs"] or 0))
        cells = [
            (
                n["node"],
                n["op"],
                "?" if n["macs"] is None else quantity(n["macs"]),
                quantity(n["parameters"]),
                "?" if n["bytes_moved"] is None else size(n["bytes_moved"]),
            )
            for n in ranked
        ]
        print()
        print_table(["node", "operator", "MACs", "parameters", "bytes moved"], cells)
    _print_notes(found)


def _print_notes(found: dict[str, Any]) -> None:
    from .render import print_line

    if found["assumed_sizes"]:
        sizes = ", ".join(f"{name}={size}" for name, size in found["assumed_sizes"].items())
        print_line(f"note: sizes taken for free dimensions: {sizes}; say others with --dim")
    if found["assumed_inside"]:
        count = found["assumed_inside"]
        what = "1 size that is" if count == 1 else f"{count} sizes that are"
        print(f"note: {what} only known when the model runs: taken as 1")
    for line in found["notes"]:
        print_line(f"note: {line}")
    left_out = found["not_counted"]
    for line in left_out[:_LEFT_OUT_SHOWN]:
        print_line(f"note: not counted: {line}")
    if len(left_out) > _LEFT_OUT_SHOWN:
        print(f"note: {len(left_out) - _LEFT_OUT_SHOWN} more not counted; --json lists them")


def _shape_text(shape: list[int | str | None] | None) -> str:
    if shape is None:
        return "unknown rank"
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"
