# SPDX-License-Identifier: Apache-2.0
"""Pipeline text parses to a tree and prints back exactly; what is wrong is said with its column."""

from __future__ import annotations

from contextlib import suppress
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.graph_ir import UsageError
from tersor.passes import catalog
from tersor.pipeline import presets
from tersor.pipeline.options import describe_type, options_of, read, write
from tersor.pipeline.spec import Loop, Option, PassSpec, Pipeline, parse, spec_of
from tests.support.passes import Options, Scheme, Strict, find

EXACT = [
    "inline",
    "inline,(fold-constants,cse)!,eliminate-dead-code",
    "(cse)!3",
    "((cse)!,(inline,cse)!12)!",
    "options{scheme=int4 per-channel}",
    "options{per-channel=false rounds=-7 limit=1e-3}",
    'options{label="a b, \\"c\\" }" ops=Conv,"x y",Gemm}',
    "options{ops=() seed=none mode=best}",
    "strict{share=0.250}",
]


@pytest.mark.parametrize("text", EXACT)
def test_text_prints_back_exactly(text: str) -> None:
    assert str(parse(text, find)) == text


def test_the_tree_holds_typed_options() -> None:
    tree = parse("inline,(options{scheme=int4 per-channel ops=Conv,Gemm limit=2})!3", find)
    assert tree == Pipeline(
        (
            PassSpec("inline"),
            Loop(
                Pipeline(
                    (
                        PassSpec(
                            "options",
                            (
                                Option("scheme", Scheme.INT4),
                                Option("per-channel", value=True),
                                Option("ops", ("Conv", "Gemm")),
                                Option("limit", 2.0),
                            ),
                        ),
                    )
                ),
                3,
            ),
        )
    )
    made = list(tree.passes())[1].pass_
    assert made == Options(Scheme.INT4, per_channel=True, ops=("Conv", "Gemm"), limit=2.0)


def test_spaces_and_lines_round_elements_are_allowed() -> None:
    text = "\n  inline ,\n  ( cse , inline )!2 ,\n  cse\n"
    assert str(parse(text, find)) == "inline,(cse,inline)!2,cse"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 1: expected a pass name or '(', found the end"),
        ("cse,", "column 5: expected a pass name or '(', found the end"),
        ("cse,,cse", "column 5: expected a pass name or '(', found ','"),
        ("cse cse", "column 5: expected ',' or the end, found 'c'"),
        ("(cse)", "column 5: expected ',' or ')!' at the end of the loop"),
        ("(cse", "column 5: expected ',' or ')!' at the end of the loop"),
        ("cse)!", "column 4: expected ',' or the end, found ')'"),
        ("(cse)!0", "column 7: a loop's limit is a count of rounds from 1 on, not 0"),
        ("(cse)!03", "column 7: a loop's limit is a count of rounds from 1 on, not 03"),
        ("inline,csee", "column 8: no pass is called 'csee'; did you mean cse?"),
        ("zzz", "column 1: no pass is called 'zzz'; see `tersor passes`"),
        ("cse,finish", "column 5: 'finish' is a preset, not a pass; a recipe's step names it: preset = "),
        ("cse{x}", "column 5: pass 'cse' has no option 'x'; it takes none"),
        (
            "options{per-chanel}",
            "column 9: pass 'options' has no option 'per-chanel'; did you mean per-channel?",
        ),
        ("options{zzz=1}", "has no option 'zzz'; it takes scheme, per-channel, rounds,"),
        ("options{rounds}", "column 9: pass 'options': 'rounds' takes a value: rounds=int"),
        ("options{rounds=x}", "column 16: pass 'options': 'rounds' takes int, not 'x'"),
        ("options{rounds=1.5}", "column 16: pass 'options': 'rounds' takes int, not '1.5'"),
        ("options{limit=much}", "column 15: pass 'options': 'limit' takes float, not 'much'"),
        ("options{per-channel=yes}", "column 21: pass 'options': 'per-channel' takes flag, not 'yes'"),
        ("options{scheme=int9}", "column 16: pass 'options': 'scheme' takes int8|int4, not 'int9'"),
        ("options{mode=slow}", "'mode' takes fast|best, not 'slow'"),
        ("options{rounds=1 rounds=2}", "column 18: pass 'options' is given 'rounds' twice"),
        ("options{rounds=1", "column 17: expected a space and the next option, or '}'"),
        ("options{rounds=1  limit=2}", "column 18: expected an option name, found ' '"),
        ("options{}", "column 9: expected an option name, found '}'"),
        ("options{rounds=}", "column 16: expected a value for 'rounds', found '}'"),
        ('options{label="a}', "column 15: expected a value for 'label', found '\"'"),
        ("strict", "column 1: pass 'strict' needs the option 'share'"),
        ("strict{share=2}", "column 1: pass 'strict': share 2.0 is not in [0, 1]"),
        ("(" * 33 + "cse" + ")!" * 33, "column 34: loops are nested more than 32 deep"),
    ],
)
def test_errors_name_the_column(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, find)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_are_the_fields() -> None:
    found = options_of(Options)
    assert list(found) == ["scheme", "per-channel", "rounds", "limit", "label", "ops", "mode", "seed"]
    described = [describe_type(option.type) for option in found.values()]
    assert described == ["int8|int4", "flag", "int", "float", "text", "list of text", "fast|best", "int|none"]
    assert options_of(Strict)["share"].required


def test_spec_of_gives_what_differs_from_the_defaults() -> None:
    spec = spec_of(Options(Scheme.INT4, per_channel=True, label="two words", seed=4))
    assert str(spec) == 'options{scheme=int4 per-channel label="two words" seed=4}'
    assert str(spec_of(Options())) == "options"
    assert str(spec_of(Strict(0.5))) == "strict{share=0.5}"


def test_presets_parse() -> None:
    for text in presets.PRESETS.values():
        assert str(parse(text)) == text
    with pytest.raises(UsageError, match="no preset is called 'losless'; did you mean lossless"):
        presets.preset("losless")


passes = st.builds(
    Options,
    scheme=st.sampled_from(Scheme),
    per_channel=st.booleans(),
    rounds=st.integers(),
    limit=st.floats(allow_nan=False),
    label=st.text(),
    ops=st.lists(st.text(), max_size=3).map(tuple),
    mode=st.sampled_from(["fast", "best"]),
    seed=st.none() | st.integers(),
)
elements = st.recursive(
    passes.map(spec_of) | st.just(PassSpec("inline")) | st.builds(Strict, st.floats(0, 1)).map(spec_of),
    lambda inner: st.builds(
        Loop,
        st.lists(inner, min_size=1, max_size=3).map(lambda found: Pipeline(tuple(found))),
        st.none() | st.integers(1, 999999),
    ),
    max_leaves=6,
)
pipelines = st.lists(elements, min_size=1, max_size=3).map(lambda found: Pipeline(tuple(found)))


@given(pipelines)
def test_any_tree_prints_to_text_that_means_it(tree: Pipeline) -> None:
    text = str(tree)
    again = parse(text, find)
    assert again == tree
    assert str(again) == text
    made = [spec.pass_ for spec in tree.passes() if spec.options]
    assert [spec.pass_ for spec in again.passes() if spec.options] == made


@given(st.text() | st.text(alphabet='cse,()!3{}= "x', max_size=24))
def test_any_text_parses_and_prints_or_is_refused_in_one_line(text: str) -> None:
    try:
        tree = parse(text, find)
    except UsageError as error:
        said = str(error)
        tree = None
    else:
        said = str(tree)
    assert said.startswith("pipeline, column ") if tree is None else parse(said, find) == tree


@given(st.text())
def test_text_options_read_back(text: str) -> None:
    assert read(str, write(str, text)) == text
    assert read(tuple[str, ...], write(tuple[str, ...], (text, "b"))) == (text, "b")
    assert read(str | None, write(str | None, text)) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fold-constants{budget-kib=-5}", "fold-constants: budget-kib must be at least 0, not -5"),
        ("convolve-over-two-axes{least-macs=-1}", "least-macs must be at least 0, not -1"),
        ("raise-opset{to=0}", "raise-opset: to must be at least 1, not 0"),
        ("to-half{margin=inf}", "to-half: margin must be at least 1, not inf"),
        ("to-half{margin=nan}", "to-half: margin must be at least 1, not nan"),
        ("smooth-quant{alpha=1.5}", "smooth-quant: alpha must be from 0 to 1, not 1.5"),
    ],
)
def test_numbers_out_of_bounds_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse(text)


def test_no_number_of_a_shipped_pass_is_taken_below_nothing_or_as_no_number() -> None:
    taken: list[str] = []
    for name in catalog.names():
        for option in options_of(catalog.get(name)).values():
            kinds = {option.type, *get_args(option.type)}
            for text in ("-1", "nan", "inf") if kinds & {int, float} else ():
                with suppress(UsageError):
                    parse(f"{name}{{{option.name}={text}}}")
                    taken.append(f"{name}{{{option.name}={text}}}")
    assert taken == []
