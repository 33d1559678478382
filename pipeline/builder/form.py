# SPDX-License-Identifier: Apache-2.0
"""What an int8 candidate is made of, also as plain data, from which it can be made again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ...graph_ir import UsageError
from ...passes.quantize.insert_qdq import InsertQdq
from ..spec import PassSpec, parse, spec_of


@dataclass(frozen=True)
class Form:
    """One static int8 form of the model.

    Attributes:
        observer: the rule its ranges are chosen by.
        picked: values by name, with the rules that theirs are chosen by instead.
        options: which nodes become int8, and how.
        methods: accuracy methods before that, as pipeline text.
        rest: a pass, as text, for the linear nodes that stay float; empty to leave them so.
        corrected: whether biases make up for the mean error of the weights.
    """

    observer: str
    options: InsertQdq
    methods: tuple[str, ...] = ()
    rest: str = ""
    corrected: bool = True
    picked: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """For people, and unlike that of any other form that is tried."""
        if not self.corrected:
            return PLAIN
        words = ["int8", self.observer]
        if self.picked:
            words.append(f"picked-{len(self.picked)}")
        if self.options.mse_weights:
            words.append("mse-weights")
        if self.options.join_concats:
            words.append("joined")
        if not self.options.float_stem:
            words.append("stem")
        if not self.options.float_tail:
            words.append("tail")
        words += [method.partition("{")[0] for method in self.methods]
        if self.options.exclude:
            words.append(f"less-{len(self.options.exclude)}")
        if self.rest:
            words += [self.rest.partition("{")[0], *[_PER_TENSOR] * (_PER_TENSOR in self.rest)]
        return " ".join(words)

    @property
    def words(self) -> str:
        """What its name stands for."""
        if not self.corrected:
            return PLAIN_WORDS
        options, count = self.options, len(self.picked)
        ranges = f"ranges by {RULES[self.observer.partition(':')[0]]}"
        if count:
            ranges += f", of {count} value{'s' * (count != 1)} by another rule"
        said = ["static int8", ranges]
        if options.mse_weights:
            said.append("weight scales by least squared error")
        if options.join_concats:
            said.append("one grid for what a Concat joins")
        if not options.float_stem:
            said.append("the first convolution int8, too")
        if not options.float_tail:
            said.append("int8 to the very outputs")
        said += [f"after {method.partition('{')[0]}" for method in self.methods]
        if options.exclude:
            said.append(f"{len(options.exclude)} more layer{'s' * (len(options.exclude) != 1)} left float")
        if self.rest:
            said += [RESTS[self.rest.partition("{")[0]], *[_ONE_SCALE] * (_PER_TENSOR in self.rest)]
        return "; ".join(said)

    @property
    def rules(self) -> str:
        """How its ranges are chosen, in words."""
        return "".join((self.observer, *(f", of {value!r} {rule}" for value, rule in self.picked)))

    def to_dict(self) -> dict[str, Any]:
        """Plain data; see `form_of`."""
        return {**asdict(self), "picked": dict(self.picked), "options": str(spec_of(self.options))}


@dataclass(frozen=True)
class Dynamic:
    """Dynamic int8 of the linear layers.

    Attributes:
        bits: of the weights.
        methods: accuracy methods before that, as pipeline text.
        per_tensor: whether matrices have one scale, and recurrent weights one per direction.
    """

    bits: int
    methods: tuple[str, ...] = ()
    per_tensor: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return " ".join(("int8 dynamic", *[_PER_TENSOR] * self.per_tensor, *self.methods))

    @property
    def words(self) -> str:
        """What its name stands for."""
        made = [
            "MatMul, Gemm and LSTM int8, with ranges found in every run",
            *[_ONE_SCALE] * self.per_tensor,
        ]
        return "; ".join((*made, *(f"after {method}" for method in self.methods)))

    @property
    def rules(self) -> str:
        """How its ranges are chosen: by none, each run finds its own."""
        return ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data; see `form_of`."""
        return asdict(self)


def form_of(data: Mapping[str, Any]) -> Form | Dynamic:
    """The form that `to_dict` wrote down.

    Raises:
        UsageError: it says what this version does not know.
    """
    try:
        given: dict[str, Any] = {**data, "methods": tuple(data["methods"])}
        _check_types(given)
        if "bits" in given:
            return Dynamic(**given)
        (options,) = parse(given.pop("options")).elements
        if isinstance(options, PassSpec) and isinstance(options.pass_, InsertQdq):
            picked: dict[str, str] = given.pop("picked")
            return Form(options=options.pass_, picked=tuple(picked.items()), **given)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"no form of a model is made of {sorted(data)}") from error
    raise UsageError(f"no form of a model is made by {str(options)!r}")


def _check_types(given: Mapping[str, Any]) -> None:
    texts = [*given["methods"], *(given[key] for key in ("observer", "rest") if key in given)]
    texts += dict(given.get("picked", {})).values()
    if not all(isinstance(text, str) for text in texts) or not isinstance(given.get("bits", 0), int):
        raise TypeError
    if not isinstance(given.get("per_tensor", False), bool):
        raise TypeError


_PER_TENSOR = "per-tensor"
_ONE_SCALE = "one scale for a matrix, and per direction for the recurrent weights of an LSTM"

PLAIN = "plain u8s8"
PLAIN_WORDS = "every layer int8; ranges by the extremes; nothing corrected"
"""What a quantizer without a search gives."""

RULES = {
    "entropy": "least divergence",
    "minmax": "the extremes",
    "mse": "least squared error",
    "percentile": "percentiles",
}
RESTS = {
    "quantize-dynamic": "MatMul, Gemm and LSTM among them with ranges found in every run",
    "weight-only": "MatMul and Gemm among them with int8 weights",
}


def plain(scheme: str) -> Form:
    """The form that every other one is compared with."""
    return Form("minmax", InsertQdq(scheme, float_stem=False, float_tail=False), corrected=False)
