# SPDX-License-Identifier: Apache-2.0
"""A random network under construction, for hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import strategies as st

from tersor.graph_ir import Model
from tests.support.prune_build import P1, build

Draw = Callable[[st.SearchStrategy[Any]], Any]


class Net:
    """A network under construction: an image `[2, channels, size, size]`, extended step by step."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.lines: list[str] = []
        self.weights: list[str] = []
        self.constants: list[str] = []
        self.last, self.channels, self.size = "x", 3, 4
        self.kept: list[tuple[str, int]] = []  # earlier images of the present size

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def add(self, call: str) -> str:
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {call}")
        return name

    def weight(self, *shape: int, kind: str = "w") -> str:
        name = f"{kind}{len(self.weights)}"
        self.weights.append(f"{name} {','.join(map(str, shape))}")
        return name

    def ints(self, *items: int) -> str:
        return self.constant("int64", str(len(items)), items)

    def conv(self, source: str, ins: int, outs: int, *, group: int = 1) -> str:
        kernel = self.pick(1, 3)
        weight = self.weight(outs, ins // group, kernel, kernel)
        bias = f", {self.weight(outs)}" if self.pick(True, False) else ""
        pads = f", {P1}" if kernel == 3 else ""
        return self.add(f"Conv<group = {group}{pads}>({source}, {weight}{bias})")

    def to(self, name: str, channels: int) -> None:
        self.last, self.channels = name, channels

    def constant(self, kind: str, shape: str, items: Iterable[float]) -> str:
        """An initializer of a type and shape, written out."""
        name = f"c{len(self.constants)}"
        self.constants.append(f"{kind}[{shape}] {name} = {{{', '.join(map(str, items))}}}")
        return name

    def keep(self) -> None:
        self.kept.append((self.last, self.channels))

    def model(self, seed: int) -> Model:
        """Close it by a head, and perhaps by a second one on an earlier image."""
        ports = ["float[2,5] y"]
        flat = self.last if self.pick(True, False) else self.add(f"GlobalAveragePool({self.last})")
        width = self.channels * self.size**2 if flat == self.last else self.channels
        self.lines.append(f"y = Gemm({self.add(f'Flatten({flat})')}, {self.weight(width, 5)})")
        if self.kept and self.pick(True, False):
            name, channels = self.pick(*self.kept)
            self.lines.append(f"z = Conv({name}, {self.weight(4, channels, 1, 1)})")
            ports.append(f"float[2,4,{self.size},{self.size}] z")
        return build(
            "\n".join(self.lines),
            "; ".join(self.weights),
            x="float[2,3,4,4] x",
            y=", ".join(ports),
            constants=", ".join(self.constants),
            seed=seed,
        )
