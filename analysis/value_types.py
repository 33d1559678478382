# SPDX-License-Identifier: Apache-2.0
"""What shape inference knows of one value, and the exchange of it with onnx's type messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..graph_ir import DataType, Shape, SymbolicDim, Value
from ..graph_ir.wire import type_proto
from . import expr
from .expr import Dim

if TYPE_CHECKING:
    import onnx


class ValueType:
    """A tensor's element type and dims, or another kind of type kept as its message.

    Interned by `TypeTable`, so that identity is equality within one inference.

    Attributes:
        elem: ONNX element type number, 0 when unknown or not a tensor.
        dims: the tensor's dims, None when its rank is unknown or it is not a tensor.
        other: the serialized message of a sequence, optional, map or sparse type.
        complete: whether nothing is left to find out.
        static: whether every dim is a number.
    """

    __slots__ = ("complete", "dims", "elem", "other", "proto", "static")

    def __init__(self, elem: int, dims: tuple[Dim, ...] | None, other: bytes | None) -> None:
        self.elem: Final = elem
        self.dims: Final = dims
        self.other: Final = other
        self.proto: onnx.TypeProto | None = None
        self.complete: Final = other is not None or (elem != 0 and dims is not None and None not in dims)
        self.static: Final = dims is not None and all(isinstance(d, int) for d in dims)

    def __str__(self) -> str:
        """The dims, for people."""
        return (
            f"[{', '.join('?' if d is None else str(d) for d in self.dims)}]"
            if self.dims is not None
            else "?"
        )


class TypeTable:
    """Interns types and keeps the texts of polynomials apart from declared names that look like them."""

    def __init__(self) -> None:
        self._interned: dict[tuple[int, tuple[Dim, ...] | None, bytes | None], ValueType] = {}
        self._by_text: dict[str, expr.Expr] = {}
        self._shapes: dict[tuple[Dim, ...], tuple[Shape, bool]] = {}
        self._elems: dict[int, DataType] = {}
        self.unknown = self.tensor(0, None)

    def tensor(self, elem: int, dims: tuple[Dim, ...] | None) -> ValueType:
        """The tensor type with this element type and these dims (None: unknown rank)."""
        return self._intern(elem, dims, None)

    def _intern(self, elem: int, dims: tuple[Dim, ...] | None, other: bytes | None) -> ValueType:
        key = (elem, dims, other)
        found = self._interned.get(key)
        if found is None:
            found = self._interned[key] = ValueType(elem, dims, other)
        return found

    def name(self, text: str) -> expr.Expr:
        """The named size, or the polynomial that was written as ``text`` before."""
        found = self._by_text.get(text)
        if found is None:
            found = self._by_text[text] = expr.symbol(text)
        return found

    def declared(self, text: str) -> Dim:
        """The named size a file declares; unknown when a polynomial of ours already goes by that text."""
        found = self.name(text)
        return found if found.name == text else None

    def text(self, dim: expr.Expr) -> str:
        """The dim's text, in brackets when another one goes by it: a declared name may look like a sum.

        Exporters name the length of a decoder's mask so; that it is the sum nobody vouches for.
        """
        text = str(dim)
        while self._by_text.setdefault(text, dim) != dim:
            text = f"({text})"
        return text

    def shape(self, dims: tuple[Dim, ...]) -> tuple[Shape, bool]:
        """The dims as the IR holds them, frozen and made once for equal ones; whether one is a polynomial."""
        found = self._shapes.get(dims)
        if found is None:
            sizes = [
                d if isinstance(d, int) else SymbolicDim(None if d is None else self.text(d)) for d in dims
            ]
            composed = any(not isinstance(d, int) and d is not None and d.name is None for d in dims)
            found = self._shapes[dims] = (Shape(sizes, frozen=True), composed)
        return found

    def elem(self, number: int) -> DataType:
        """An element type by its number."""
        found = self._elems.get(number)
        if found is None:
            found = self._elems[number] = DataType(number)
        return found

    def of_value(self, value: Value) -> ValueType:
        """The type recorded on an IR value."""
        if value.type is None and value.shape is None:
            return self.unknown
        if value.type is not None:
            proto = type_proto(value)
            if proto is not None and not proto.HasField("tensor_type"):
                return self._intern(0, None, proto.SerializeToString(deterministic=True))
        dims: tuple[Dim, ...] | None = None
        if value.shape is not None:
            dims = tuple(
                d if isinstance(d, int) else None if d.value is None else self.declared(d.value)
                for d in value.shape
            )
        return self.tensor(int(value.dtype or 0), dims)

    def of_proto(self, proto: onnx.TypeProto) -> ValueType:
        """The type a message holds."""
        if not proto.HasField("tensor_type"):
            return self.unknown if proto.WhichOneof("value") is None else self._intern(0, None, _bytes(proto))
        tensor = proto.tensor_type
        if not tensor.HasField("shape"):
            return self.tensor(tensor.elem_type, None)
        dims = tuple(
            d.dim_value if d.HasField("dim_value") else self.name(d.dim_param) if d.dim_param else None
            for d in tensor.shape.dim
        )
        return self.tensor(tensor.elem_type, possible(dims))

    def proto(self, known: ValueType) -> onnx.TypeProto:
        """The message for a type (made once; do not edit)."""
        if known.proto is None:
            import onnx

            proto = onnx.TypeProto()
            if known.other is not None:
                proto.ParseFromString(known.other)
            elif known.elem or known.dims is not None:
                proto.tensor_type.elem_type = known.elem
                if known.dims is not None:
                    shape = proto.tensor_type.shape
                    shape.SetInParent()
                    for dim in known.dims:
                        entry = shape.dim.add()
                        if isinstance(dim, int):
                            entry.dim_value = dim
                        elif dim is not None:
                            entry.dim_param = self.text(dim)
            known.proto = proto
        return known.proto

    def join(self, a: ValueType, b: ValueType) -> ValueType:
        """What holds of a value that is of one type or the other."""
        if a is b:
            return a
        if a.other is not None or b.other is not None:
            return self.unknown
        elem = a.elem if a.elem == b.elem else 0
        if a.dims is None or b.dims is None or len(a.dims) != len(b.dims):
            return self.tensor(elem, None)
        return self.tensor(elem, tuple(x if x == y else None for x, y in zip(a.dims, b.dims, strict=True)))

    def meet(self, sure: ValueType, more: ValueType) -> ValueType:
        """``sure`` with its unknown parts taken from ``more`` (both hold; ``sure`` wins)."""
        if sure is more or sure.other is not None:
            return sure
        if more.other is not None:
            return more if sure is self.unknown else sure
        dims = sure.dims if sure.dims is not None else more.dims
        if sure.dims is not None and more.dims is not None and len(sure.dims) == len(more.dims):
            dims = tuple(y if x is None else x for x, y in zip(sure.dims, more.dims, strict=True))
        return self.tensor(sure.elem or more.elem, dims)


def possible(dims: tuple[Dim, ...] | None) -> tuple[Dim, ...] | None:
    """Sizes of which those below 0, as of a window larger than its input, are unknown."""
    return None if dims is None else tuple(None if isinstance(d, int) and d < 0 else d for d in dims)


def _bytes(proto: onnx.TypeProto) -> bytes:
    return proto.SerializeToString(deterministic=True)
