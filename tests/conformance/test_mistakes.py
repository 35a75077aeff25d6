"""The bank of known mistakes: every row is wrong on its example, where the right function is right."""

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest

from npreparam import certified, fuse, ops
from npreparam._errors import ArgumentError
from npreparam.certified.bounds import FLOAT32, FLOAT64, profile_named
from npreparam.conformance import Case, Declaration, Level, Target
from npreparam.conformance.case import Key
from npreparam.conformance.cases import make_case
from npreparam.conformance.judge import judge_case
from npreparam.conformance.mistakes import MISTAKES, as_target, balls, caught, mistake_named, mistaken, mistakes_of, pinned_cases
from npreparam.conformance.mistakes._registry import Mistake, mistake
from npreparam.conformance.mistakes._right import conv2d, fitted
from npreparam.conformance.mistakes._trial import in_dtype
from npreparam.conformance.signatures import OPS
from tests import naive
from tests.tolerances import assert_same_bits

RIGHT = SimpleNamespace(**{op: getattr(fuse if op.startswith("fuse") else ops, op) for op in OPS}, declaration=None)
JUDGED = [row for row in MISTAKES.values() if not row.refused]
REFUSED = [row for row in MISTAKES.values() if row.refused]
NOTHING = Mistake("conv2d", "nothing", lambda right, **g: right.conv2d(**g), "", {})
counted = np.arange(1, 61, dtype=np.float32)


def label(row):
    return f"{row.op}: {row.name}"


def numbers(*shape):
    return counted[:np.prod(shape)].reshape(shape)


def beyond(row, case=None):
    """Whether the judge finds the mistake impossible."""
    return not judge_case(case or row.case, as_target(row)).conforms


@pytest.mark.parametrize("row", JUDGED, ids=label)
def test_every_mistake_is_wrong_on_its_example_where_the_right_function_is_right(row):
    right = SimpleNamespace(**{**vars(RIGHT), "declaration": as_target(row).declaration})
    if row.relation == "prefilled":
        right = SimpleNamespace(conv2d=lambda *a, out=None, **k: ops.conv2d(*a, **k), declaration=right.declaration)
    assert judge_case(row.case, right).level in (Level.EXACT, Level.OK)
    assert beyond(row)


def test_a_row_that_changes_nothing_would_be_noticed():
    assert not beyond(NOTHING, mistake_named("conv2d", "kernel flipped").case)


@pytest.mark.parametrize("row", REFUSED, ids=label)
def test_what_the_right_function_refuses_the_mistake_answers(row):
    with pytest.raises(ArgumentError):
        getattr(certified, row.op)(**row.example)
    with pytest.raises(ArgumentError):
        getattr(ops, row.op)(**row.example)
    assert any(np.isnan(y).any() for y in mistaken([row], row.case))


def test_every_known_bug_has_a_row():
    found = {int(number) for row in MISTAKES.values() for number in re.findall(r"KNOWN_BUGS (\d+)", row.seen)}
    assert found == set(range(1, 32))
    assert len(MISTAKES) >= 80
    assert {row.op for row in MISTAKES.values()} == set(OPS)


def test_examples_are_small():
    big = [label(row) for row in MISTAKES.values() if sum(a.size for a in row.case.arrays().values()) > 64 and "overflows" not in row.name]
    assert big == []


# where KNOWN_BUGS.md names an input, the rows with its number are visible there
KNOWN_INPUTS = {
    1: Case("conv2d", {"x": numbers(1, 1, 2, 3), "w": numbers(2, 1, 2, 2)}, layout="channels_last"),
    2: Case("conv2d", {"x": numbers(1, 1, 3, 3), "w": numbers(1, 1, 2, 2)}, layout="strided"),
    3: Case("conv2d", {"x": np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2), "w": numbers(1, 3, 1, 1)}, layout="channels_last"),
    4: Case("conv2d", {"x": numbers(1, 1, 1, 3), "w": numbers(1, 1, 1, 2), "dilation": 2}),
    5: Case("conv2d", {"x": np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8), "w": numbers(1, 1, 2, 2), "dilation": 2, "stride": 2}),
    6: Case("conv2d", {"x": numbers(1, 1, 2, 2), "w": numbers(1, 1, 2, 2)}),
    7: Case("conv2d", {"x": numbers(1, 1, 1, 4), "w": numbers(1, 1, 1, 3), "stride": (1, 2), "padding": (0, 1)}),
    11: Case("conv2d_weight_grad", {"gy": numbers(1, 1, 1, 1), "x": numbers(1, 1, 2, 2), "weight_shape": (1, 1, 3, 3), "stride": 2, "padding": 1}),
    12: Case("conv2d_input_grad", {"gy": numbers(1, 1, 1, 1), "w": numbers(1, 1, 3, 3), "input_shape": (1, 1, 5, 5), "dilation": 2}),
    13: Case("conv2d_weight_grad", {"gy": numbers(1, 2, 1, 1), "x": numbers(1, 2, 1, 1), "weight_shape": (2, 1, 1, 1), "stride": (2, 1),
                                    "groups": 2}),
    16: Case("conv2d_weight_grad", {"gy": numbers(1, 3, 2, 2), "x": numbers(1, 3, 4, 5), "weight_shape": (3, 1, 2, 2), "stride": 4, "padding": 1,
                                    "groups": 3}),
}


@pytest.mark.parametrize("number", KNOWN_INPUTS)
def test_known_bugs_show_on_their_own_inputs(number):
    rows = [row for row in MISTAKES.values() if re.search(rf"KNOWN_BUGS {number}\b", row.seen)]
    assert rows
    assert all(beyond(row, KNOWN_INPUTS[number]) for row in rows)


def test_the_same_mistake_in_every_format():
    """What the mistake does to small integers does not depend on the format."""
    row = mistake_named("conv2d", "kernel flipped")
    expected = mistaken([row], row.case)[0]
    for dtype in ("float16", "bfloat16", "float64"):
        found = mistaken([row], in_dtype(row.case, dtype))[0]
        assert found.dtype.name == dtype
        np.testing.assert_array_equal(found.astype(np.float32), expected)


@pytest.mark.parametrize("row", JUDGED, ids=label)
def test_the_judged_format_lies_within_the_balls(row):
    """Balls hold what the mistake is in the profile's own format; that is one honest evaluation of the formula."""
    lifted = balls([row], row.case, FLOAT64 if row.case.dtype == "float64" else FLOAT32)
    for y, ball in zip(mistaken([row], row.case), lifted, strict=True):
        assert y.shape == ball.shape
        with np.errstate(invalid="ignore"):
            near = np.abs(y - ball.value) <= 2 * ball.radius + np.spacing(np.abs(y)) / 2
        assert (near | (y == ball.value) | (np.isnan(y) & np.isnan(ball.value)) | (ball.radius == np.inf)).all()


def test_a_target_is_wrong_in_one_function_only():
    target = as_target(mistake_named("linear", "bias left out"))
    x, w, b = numbers(1, 2), numbers(3, 2), numbers(3)
    np.testing.assert_array_equal(target.linear(x, w, b), ops.linear(x, w))
    assert_same_bits(target.tanh(x), ops.tanh(x))
    assert set(Target.of(target).offers()) == set(OPS)


def test_a_flickering_target_is_right_now_and_then():
    row = next(row for row in MISTAKES.values() if row.flickers)
    answer = as_target(row).conv2d_weight_grad
    results = [float(answer(*row.example.values())[0, 0, 0, 0]) for _ in range(8)]
    assert results == [5, 5, 4, 4, 5, 5, 4, 4]


def test_one_mistake_inside_another():
    outer, inner = mistake_named("conv2d", "kernel flipped in width"), mistake_named("conv2d", "bias left out")
    x, w, b = numbers(1, 1, 1, 2), numbers(1, 1, 1, 2), numbers(1)
    assert as_target(outer, inner).conv2d(x, w, b).item() == 4  # 1*2 + 2*1


def test_what_cases_catch():
    ones = Case("conv2d", {"x": np.ones((1, 1, 2, 2), np.float32), "w": np.ones((1, 1, 2, 2), np.float32)})
    assert not {"kernel flipped", "kernel transposed", "bias left out"} & set(map(str, caught([ones])))
    assert "first window one too far out" in map(str, caught([ones]))
    for op in OPS:
        assert [str(row) for row in caught(pinned_cases(op))] == [str(row) for row in mistakes_of(op) if not row.refused]
    assert caught([row.case for row in REFUSED]) == REFUSED
    assert caught([]) == []


def test_what_cases_catch_depends_on_the_arithmetic_that_they_are_judged_by():
    """Sums in float16 are no mistake for who declares them; and what is claimed to be caught is caught."""
    rows, profile = mistakes_of("conv2d"), profile_named("float16_float16")
    cases = [row.case for row in rows]
    missed = set(map(str, rows)) - set(map(str, caught(cases, profile)))
    assert {"sums in float16", "Winograd F(4,3) in float16"} <= missed
    assert set(map(str, caught(cases, declaration=Declaration("", profiles={"float32": profile})))) == set(map(str, rows)) - missed
    for row in rows:
        if not row.relation:
            failing = any(not judge_case(case, as_target(row), profile).conforms for case in cases if case.layout == row.layout)
            assert failing or str(row) in missed


def test_conventions_of_a_target_are_no_mistakes_of_it_and_do_not_hide_any():
    x = np.float32([[1], [3]])
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    case = Case("batch_norm", {"x": x, "gamma": one, "beta": zero, "running_mean": zero, "running_var": one, "training": True})
    declared = Declaration("", running_variance="biased", conventions={"max_pool_nan": "drop"})
    assert caught([case], declaration=declared) == caught([case])
    assert not {"gamma left out", "beta left out"} & set(map(str, caught([case], declaration=declared)))


def test_a_buffer_and_a_race_are_caught_only_by_who_asks_for_them():
    for name, op in (("beta = 0 times what the buffer held", "conv2d"), ("only the last image counts, now and then", "conv2d_weight_grad")):
        row = mistake_named(op, name)
        assert row in caught([row.case])
        assert row not in caught([dataclasses.replace(row.case, relation="")])


def test_drawn_cases_catch_nearly_all_mistakes_of_convolution():
    cases = [make_case(Key("conv2d", phase, "float32", 0, index)) for phase in ("geometry", "relation") for index in range(40)]
    missed = set(map(str, mistakes_of("conv2d"))) - set(map(str, caught(cases)))
    assert missed == {"input offset overflows", "output offset overflows", "NaN replaced by zero", "sums in float16", "Winograd F(4,3) in float16",
                      "result in the layout of channels_last weights"} & missed


def test_names():
    with pytest.raises(ArgumentError, match=r"`name` \(='upside down'\) must be a known mistake of linear: weights transposed"):
        mistake_named("linear", "upside down")
    with pytest.raises(ValueError, match="twice"):
        mistake("linear", "bias left out", None, "", example={})


def test_lenient_convolution_is_the_loop_nest_over_an_image_of_any_size():
    """With `out` too large or too small, and padding negative: the twin pads or crops the image first."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        before, out = tuple(rng.integers(-2, 3, 2).tolist()), tuple(rng.integers(1, 4, 2).tolist())
        stride, dilation, kernel = (tuple(rng.integers(1, 3, 2).tolist()) for _ in range(3))
        x = rng.integers(-4, 5, (1, 1, *rng.integers(1, 5, 2))).astype(np.float32)
        w = rng.integers(-4, 5, (1, 1, *kernel)).astype(np.float32)
        size = tuple((n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(out, stride, dilation, kernel, strict=True))
        expected = naive.conv2d(fitted(x, before, size), w, None, stride, ((0, 0), (0, 0)), dilation, 1)
        assert_same_bits(conv2d(x, w, None, stride, ((before[0], 0), (before[1], 0)), dilation, 1, out), expected)
