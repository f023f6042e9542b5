"""Plans: read from text and TOML, checked in every option, digested, applied step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.compress import graph_file as gf
from modelyard.compress.compress import compress
from modelyard.compress.passes.layers import done
from modelyard.compress.plan import Plan, PlanPass, from_toml, of_tables, parse, run_plan
from modelyard.compress.plan_option import options_of
from modelyard.compress.plan_steps import KINDS, step_of
from modelyard.core.errors import CompressError
from modelyard.model.model import Model

Case: TypeAlias = Any


def some_value(default: Any, facts: Any) -> st.SearchStrategy[Any]:
    if facts.choices:
        return st.sampled_from(facts.choices)
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, int):
        return st.integers(int(facts.low), min(int(facts.high), 1000))
    if isinstance(default, float):
        return st.floats(facts.low, facts.high)
    return st.sampled_from(["free", "2:4", "1:8"])


@st.composite
def tables(draw: Any) -> list[dict[str, Any]]:
    names = draw(
        st.lists(st.sampled_from(sorted(n for n, k in KINDS.items() if not k.quantizes)), max_size=3)
    )
    names += draw(st.lists(st.sampled_from(sorted(n for n, k in KINDS.items() if k.quantizes)), max_size=1))
    found = []
    for name in names or ["graph"]:
        table = {"pass": name}
        for option, (facts, default) in KINDS[name].options().items():
            if draw(st.booleans()):
                table[option] = draw(some_value(default, facts))
        found.append(table)
        try:
            of_tables(found)
        except CompressError as error:
            if "cannot follow" not in error.what:
                raise
            found.pop()
    return found


@given(tables())
@settings(max_examples=150, deadline=None)
def test_every_plan_comes_back_from_text_and_toml(steps: list[dict[str, Any]]) -> None:
    plan = of_tables(steps)
    for again in (parse(plan.text), from_toml(plan.to_toml()), from_toml(f"plan = {plan.text!r}")):
        assert again == plan
        assert again.digest == plan.digest
        assert again.text == plan.text


def test_every_option_has_a_text_and_bounds_that_hold() -> None:
    for name, kind in KINDS.items():
        for option, (facts, default) in options_of(kind.make).items():
            assert facts.text, (name, option)
            if isinstance(default, int | float) and not isinstance(default, bool):
                assert facts.low is not None and facts.high is not None
                assert facts.low <= default <= facts.high


def test_the_letters_of_papers_and_bare_values_are_understood() -> None:
    plan = parse("prune(0.5) > distil(T=4, a=0.9) > int8-static")
    assert plan == parse(" prune( sparsity = 0.5 )>distil(temperature=4.0,a=.9)>int8-static() ")
    assert [step.kind for step in plan.steps] == ["prune", "distil", "int8-static"]
    assert plan.trains and not parse("prune > int8-static").trains


def test_digests_tell_plans_apart_and_spellings_together() -> None:
    assert parse("prune").digest == parse("prune(0.5, pattern=free)").digest
    assert parse("distil(T=4)").digest == parse("distil(temperature=4.0)").digest
    different = [
        "prune",
        "prune(0.6)",
        "prune > graph",
        "graph > prune",
        "int8-static",
        "int8-static:entropy",
    ]
    assert len({parse(text).digest for text in different}) == len(different)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "step 1 of the plan cannot be read"),
        ("prune >", "step 2 of the plan cannot be read"),
        ("prune(0.5", "cannot be read"),
        ("prune(0.5))", "cannot be read"),
        ("prune(0.5,)", "end in a comma"),
        ("prune(,)", "cannot be read"),
        ("prune(sparsity=)", "cannot be read"),
        ("prune(0.5, global)", "has no name"),
        ("prune(0.5, sparsity=0.4)", "twice"),
        ("distil(T=2, temperature=4)", "twice"),
        ("graph > pruen(0.5)", "step 2.*did you mean 'prune'"),
        ("prune(sparsty=0.5)", "did you mean 'sparsity'"),
        ("prune(1.5)", "out of range.*0.01 to 0.999"),
        ("prune(nan)", "not a number"),
        ("prune(inf)", "not a number"),
        ("prune(true)", "not a number"),
        ("tune(epochs=1.5)", "not a whole number"),
        ("tune(zeros=1)", "neither true nor false"),
        ("prune(scope=globl)", "did you mean 'global'"),
        ("graph(1)", "takes no options"),
        ("int8-static:entropy(calibration=minmax)", "in its name"),
        ("int8-static > prune", "quantization comes last"),
        ("qat > tune", "quantization comes last"),
        ("int4-weights > qat", "one trained quantization"),
        ("__import__('os')", "cannot be read"),
        ("float16 > graph", "graph cannot follow float16.*float32 again"),
        ("bfloat16 > tune > int8-static", "tune cannot follow bfloat16"),
        ("float16(only=all) > share", "float32 no more"),
        ("prune > share > tune > prune", "prune cannot follow share.*plain weights again"),
        ("share > int8-static", "put share last"),
        ("share(store=plain) > tune", "value of its own"),
        ("prune(pattern='2:4') > prune-units", "N of every M"),
        ("prune-gradually > tune > low-rank", "low-rank cannot follow prune-gradually.*zeros would be lost"),
        ("prune > low-rank:gated", "zeros would be lost"),
        ("prune > distil(student=recipe)", "keeps nothing of the graph.*put distil first"),
    ],
)
def test_what_is_wrong_is_said(text: str, match: str) -> None:
    with pytest.raises(CompressError, match=match):
        parse(text)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("plan = ", "no TOML"),
        ("plan = 3", "no text"),
        ("x = 1", "one thing"),
        ("", "one thing"),
        ("step = 1", "no array"),
        ("[[step]]\nsparsity = 0.5", "names no pass"),
        ("[[step]]\npass = 'prune'\nsparsity = [1]", "not a number"),
        ("[[step]]\npass = 'prune'\nsparsity = '0.5'", "not a number"),
    ],
)
def test_what_is_wrong_in_toml_is_said(text: str, match: str) -> None:
    with pytest.raises(CompressError, match=match):
        from_toml(text)


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_plan_or_a_clear_error(text: str) -> None:
    try:
        assert isinstance(parse(text), Plan)
    except CompressError as error:
        assert error.what


@pytest.mark.parametrize(
    "text",
    [
        "prune > share > tune", "share > distil", "graph > prune-units > low-rank > tune > int8-static",
        "low-rank(method=cp) > prune > share(store=plain) > int8-static", "distil(student=recipe) > prune",
        "prune > prune-units > float16", "int8-dynamic > int8-static > graph", "share(store=plain) > share",
    ],
)  # fmt: skip
def test_orders_that_keep_what_was_done_are_plans(text: str) -> None:
    assert parse(text).text.count(">") == text.count(">")


def undone(model: Model, found: Model) -> bool:
    """Whether hardly anything is left of what made a model smaller."""
    return found.size > 0.9 * model.size


@pytest.mark.parametrize("first", ["share", "float16", "bfloat16"])
def test_what_the_rules_refuse_is_really_undone(wide: Case, first: str) -> None:
    """Passes fold constants before they look for weights, and that is all it takes."""
    made = step_of(first, {}).apply(wide.model, wide.calibration).model
    assert not undone(wide.model, made)
    folded = gf.optimized(onnx.ModelProto.FromString(made.onnx))
    assert undone(wide.model, done(folded, wide.model, ()).model)


def test_a_chain_of_names_keeps_the_order_too(wide: Case) -> None:
    with pytest.raises(CompressError, match="graph cannot follow share"):
        compress(wide.model, ["share>graph"], wide.calibration, wide.held, metric="accuracy", margin=0.05)


def test_steps_are_applied_in_order_with_their_notes(wide: Case) -> None:
    before = wide.model.onnx
    told: list[str] = []
    found = run_plan(
        parse("prune-units(0.25) > prune(0.5) > int8-static"), wide.model, wide.calibration,
        progress=lambda fraction, text: told.append(f"{fraction:.2f} {text}"),
    )  # fmt: skip
    assert [step.name for step in found.done] == ["prune-units(sparsity=0.25)", "prune", "int8-static"]
    assert found.notes[0].startswith("prune-units(sparsity=0.25): 2 dimensions shrink")
    sizes = [step.size for step in found.done]
    assert sizes[0] < wide.model.size and sizes[2] < sizes[1] and sizes[2] == found.model.size
    assert told == ["0.00 prune-units(sparsity=0.25)", "0.33 prune", "0.67 int8-static", "1.00 planned"]
    assert wide.model.onnx == before
    as_pass = PlanPass(parse("prune-units(0.25) > prune(0.5) > int8-static"))
    assert as_pass.apply(wide.model, wide.calibration).model.digest == found.model.digest


def test_the_step_that_fails_is_named(tiny: Case, trees: Case) -> None:
    with pytest.raises(CompressError, match=r"step 2 \(low-rank\(energy=0.9999\)\): does not apply"):
        run_plan(parse("prune-units(0.25) > low-rank(0.9999)"), tiny.model, tiny.calibration)
    with pytest.raises(CompressError, match="no Conv, Gemm or MatMul"):
        run_plan(parse("prune"), trees.model, trees.calibration)
    with pytest.raises(CompressError, match=r"step 2 \(int8-static\): too few rows"):
        run_plan(parse("prune > int8-static"), tiny.model, {"x": tiny.calibration["x"][:3]})


def test_a_plan_that_trains_asks_for_rows_before_anything_is_done(tiny: Case) -> None:
    told: list[str] = []
    with pytest.raises(CompressError, match="tune needs rows with targets"):
        run_plan(
            parse("prune > tune"), tiny.model, tiny.calibration, progress=lambda _, text: told.append(text)
        )
    assert told == []


@dataclass(frozen=True)
class Plugin:
    name: str = "own"

    def apply(self, model: Any, calibration: Any) -> Any:
        raise KeyError("oops")


def test_a_plugins_pass_is_a_step_too(tiny: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelyard.compress import plan_steps
    from modelyard.core.names import Plugins

    outside: Plugins[Any] = Plugins(
        "modelyard.passes.of.this.test", {"own": (Plugin(),), "two": (Plugin("a"), Plugin("b"))}
    )
    monkeypatch.setattr(plan_steps, "PASSES", outside)
    plan = parse("graph > own")
    assert plan.text == "graph > own" and parse(plan.text) == plan
    with pytest.raises(CompressError, match="takes no options"):
        parse("own(1)")
    with pytest.raises(CompressError, match="2 alternatives"):
        parse("two")
