"""The diagnosis names the mistake that was made, and none where there is none."""

from types import SimpleNamespace

import numpy as np
import pytest

from npreparam import certified, ops
from npreparam._errors import ArgumentError
from npreparam.certified import bounds
from npreparam.conformance import Case, Declaration, Level
from npreparam.conformance.case import Key
from npreparam.conformance.cases import make_case
from npreparam.conformance.diagnosis import asking, diagnose, diagnose_all
from npreparam.conformance.explain import rounded_operands
from npreparam.conformance.judge import judge_case
from npreparam.conformance.matching import LARGEST
from npreparam.conformance.mistakes import MISTAKES, as_target, caught, mistake_named, mistaken, mistakes_of
from npreparam.conformance.mistakes._trial import in_dtype
from npreparam.conformance.runner import InProcess
from npreparam.conformance.signatures import OPS
from npreparam.conformance.sweep import Job, Plan, run
from tests.certified import simulate
from tests.conformance import honest

DRAWN = [(phase, index) for phase in ("geometry", "random", "relation") for index in range(30)]


def failing(row, seed, count=1, dtype="float32"):
    """Up to `count` drawn cases on which a mistake shows, and what it makes of them."""
    found = []
    for phase, index in DRAWN:
        case = make_case(Key(row.op, phase, dtype, seed, index))
        if row in caught([case]):
            found.append((case, mistaken([row], case)))
        if len(found) == count:
            break
    return found


def names(findings):
    return [finding.name for finding in findings]


def share_named(results):
    """The fraction of mistakes that come first, after printing the others."""
    confused = {f"{row.op}: {row.name}": names(found)[:3] for row, found in results if names(found)[:1] != [row.name]}
    print(*(f"{wanted} -> {got}" for wanted, got in confused.items()), sep="\n")
    return 1 - len(confused) / len(results)


def test_from_its_example_and_further_questions_every_mistake_is_named_first():
    results = [(row, diagnose(row.case, mistaken([row], row.case), ask=asking(as_target(row)))) for row in MISTAKES.values()]
    assert share_named(results) == 1


def test_from_one_drawn_case_alone_nine_of_ten_are_named_first():
    rows = [row for row in list(MISTAKES.values())[::6] if not row.refused and not row.flickers]
    results = [(row, diagnose(*failures[0])) for row in rows if (failures := failing(row, 5))]
    assert len(results) > 0.9 * len(rows)
    assert share_named(results) >= 0.9


def test_several_failing_cases_narrow_it():
    row = mistake_named("conv2d", "stride of H and W swapped")
    failures = failing(row, 5, 4)
    x, w = np.float32([[[[1, 2]]]]), np.float32([[[[3]]]])
    first = Case("conv2d", {"x": x, "w": w, "stride": (1, 2)})
    alone = diagnose(first, mistaken([row], first))
    assert {"stride ignored", "stride of H used for W"} < set(names(alone))
    assert alone[0].alike
    assert names(diagnose_all([(first, mistaken([row], first)), *failures])) == [row.name]


def test_cases_that_passed_rule_mistakes_out():
    row = mistake_named("conv2d", "stride of H and W swapped")
    case = Case("conv2d", {"x": np.float32([[[[1, 2]]]]), "w": np.float32([[[[3]]]]), "stride": (1, 2)})
    passed = Case("conv2d", {"x": np.float32([[[[1, 2]]]]), "w": np.float32([[[[3]]]]), "stride": 2})
    kept = names(diagnose_all([(case, mistaken([row], case))], passed=[passed]))
    assert row.name in kept
    assert "stride ignored" not in kept


def test_failures_of_different_mistakes_have_the_diagnosis_that_explains_most():
    flipped, left_out = mistake_named("conv2d", "kernel flipped"), mistake_named("conv2d", "bias left out")
    failures = [*failing(flipped, 5, 3), *failing(left_out, 6, 1)]
    assert diagnose_all(failures)[0].name == "kernel flipped"


def test_a_wrong_function_that_is_no_known_mistake_has_no_diagnosis():
    case = make_case(Key("conv2d", "random", "float32", 0, 0))
    right = InProcess(honest.machine("sequential", bounds.FLOAT32)).target.functions.conv2d(**case.arguments)
    assert diagnose(case, right * np.float32(1.01)) == []
    assert diagnose(case, np.zeros((1, 2, 3), np.float32)) == []
    assert diagnose(case, np.full_like(right, np.nan)) == []


def test_results_of_a_shape_of_their_own_are_diagnosed_without_a_match():
    def conv2d(x, w, *arguments, **keywords):
        return np.zeros((5, 7, 11), x.dtype)

    for fail_fast in (False, True):
        assert run(Job(SimpleNamespace(conv2d=conv2d)), Plan(("conv2d",), ("float32",), rounds=1, fail_fast=fail_fast)).diagnosis == {"conv2d": []}


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.complex64, np.longdouble])
@pytest.mark.filterwarnings("error")
def test_results_of_a_dtype_that_is_none_of_the_judged_ones_are_told_and_have_no_diagnosis(dtype):
    """Of small integers, which other dtypes hold as well; and wrong ones, too."""
    def turned(*arguments, **keywords):
        return ops.conv2d(*arguments, **keywords)[..., ::-1].astype(dtype)

    def input_grad(*arguments, **keywords):
        return ops.conv2d_input_grad(*arguments, **keywords).astype(dtype)

    target = SimpleNamespace(conv2d=turned, conv2d_input_grad=input_grad)
    verdicts = [judge_case(make_case(Key("conv2d_input_grad", "adjoint", "float32", 0, index)), target) for index in range(2)]
    for verdict in (*verdicts, judge_case(make_case(Key("conv2d", "exact", "float32", 0, 2)), target)):
        assert verdict.level is Level.ERROR
        assert f"has dtype {np.dtype(dtype)}" in verdict.explanation
    row = mistake_named("conv2d", "kernel flipped")
    assert diagnose(row.case, mistaken([row], row.case)[0].astype(dtype), ask=asking(target)) == []


def test_further_questions_refute_a_coincidence():
    """A target that is wrong on one input only is not the mistake that would be wrong there."""
    row = mistake_named("conv2d", "bias left out")
    right = as_target(mistake_named("tanh", "of 2x"))
    assert row.name in names(diagnose(row.case, mistaken([row], row.case)))
    assert diagnose(row.case, mistaken([row], row.case), ask=asking(right)) == []


def test_operands_rounded_to_bfloat16_and_a_mistake():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 2, 4, 4)).astype(np.float32), rng.standard_normal((2, 2, 3, 2)).astype(np.float32)
    case, row = Case("conv2d", {"x": x, "w": w}), mistake_named("conv2d", "kernel flipped")
    for form, words in (("tf32", "TF32 inputs"), ("bfloat16", "bfloat16 inputs")):
        found = diagnose(case, mistaken([row], rounded_operands(case, form)))
        assert [(finding.name, finding.operands) for finding in found] == [(row.name, words)]
        assert f"the same bits; of {words}" in str(found[0])
        right = honest.machine("sequential", bounds.FLOAT32).conv2d(**rounded_operands(case, form).arguments)
        assert diagnose(case, right) == []  # the judge says so itself


def half_images(seed):
    """A convolution of 64 channels, and what one makes of it that keeps its images, not its weights, in TF32 or float16: the same here."""
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((1, 64, 6, 6)).astype(np.float32), rng.standard_normal((4, 64, 3, 3)).astype(np.float32)
    return Case("conv2d", {"x": x, "w": w}), ops.conv2d(x.astype(np.float16).astype(np.float32), w)


def test_one_operand_rounded_has_its_name_and_no_diagnosis():
    case, actual = half_images(1)
    verdict = judge_case(case, SimpleNamespace(conv2d=lambda *args, **kwargs: actual))
    assert verdict.explanation.endswith("consistent with TF32 values of `x` alone")
    assert not verdict.diagnosis


def test_mistakes_that_do_nothing_here_do_not_match():
    case, actual = half_images(1)
    bound = bounds.conv2d_bound(**case.arguments, profile="float32")
    noise = np.random.default_rng(0).uniform(-1.5, 1.5, bound.shape) * bound      # within twice the radius, but of no operands' rounding
    assert not diagnose(case, (certified.conv2d(**case.arguments, out_dtype=np.float64).value + noise).astype(np.float32))
    assert not diagnose(case, actual)


def test_rounded_operands_that_explain_more_leave_no_diagnosis():
    small = Case("conv2d", {"x": np.float32([[[[1 + 2.0**-12]]]]), "w": np.float32([[[[1]]]])})
    one = np.ones((1, 1, 1, 1), np.float32)
    assert "sums in float16" in names(diagnose(small, one))
    assert not diagnose_all([(small, one), half_images(1), half_images(4)])


def test_two_mistakes_together():
    rng = np.random.default_rng(1)
    x, w, b = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((1, 2, 5, 4), (2, 2, 3, 2), (2,)))
    case = Case("conv2d", {"x": x, "w": w, "b": b, "stride": (1, 2), "padding": 1})
    outer, inner = mistake_named("conv2d", "kernel flipped"), mistake_named("conv2d", "bias left out")
    found = diagnose(case, as_target(outer, inner).conv2d(**case.arguments))
    assert {"kernel flipped and bias left out", "bias left out and kernel flipped"} >= {found[0].name}
    big = np.zeros((1, 1, 1, LARGEST + 1), np.float32)
    big[..., :4] = 1, 2, 3, 4
    case = Case("conv2d", {"x": big, "w": w[:1, :1], "b": b[:1], "padding": 1})
    assert diagnose(case, as_target(outer, inner).conv2d(**case.arguments)) == []  # too large to try pairs


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_formats(dtype):
    for op, name in (("conv2d", "kernel flipped"), ("linear", "bias left out"), ("normal_log_prob", "log(2 pi) left out"), ("silu", "relu")):
        case = in_dtype(mistake_named(op, name).case, dtype)
        assert diagnose(case, mistaken([mistake_named(op, name)], case))[0].name == name


def test_a_mistake_in_another_order_of_summation_is_recognised_within_rounding():
    """Same formula, other roundings: the simulated machine sums the flipped kernel in a tree."""
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((1, 3, 5, 5)), rng.standard_normal((2, 3, 3, 3))
    case = Case("conv2d", {"x": x.astype(np.float32), "w": w.astype(np.float32)})
    x, w = (value.astype(np.float64) for value in case.arguments.values())
    actual = simulate.conv2d(x, w[..., ::-1, ::-1], bounds.FLOAT32, "random_tree", rng)
    found = diagnose(case, actual)
    assert names(found) == ["kernel flipped"]
    assert not found[0].same_bits
    assert found[0].sharp
    assert "within rounding" in str(found[0])


@pytest.mark.parametrize("style", ["sequential", "shuffled", "pairwise", "blocked", "random_tree", "fma"])
def test_honest_machines_have_no_diagnosis(style):
    """Order permuted, blocked, fused, float32 or bfloat16 operands: nothing matches, whatever the input."""
    rng = np.random.default_rng(3)
    for trial in range(25):
        profile = bounds.FLOAT32 if trial % 2 or style == "fma" else bounds.BFLOAT16_FLOAT32
        shape, kernel = (1, 2, *rng.integers(3, 6, 2)), (2, 2, *rng.integers(1, 4, 2))
        x, w = (simulate.rounded(rng.standard_normal(s), profile.input_rounding) for s in (shape, kernel))
        dtype = simulate.DTYPES[profile.input_rounding]
        case = Case("conv2d", {"x": x.astype(dtype), "w": w.astype(dtype)})
        assert diagnose(case, simulate.conv2d(x, w, profile, style, rng), profile) == []


@pytest.mark.parametrize("op", [op for op in OPS if hasattr(honest.PLAIN, op)])
def test_honest_functions_have_no_diagnosis(op):
    runner = InProcess(honest.PLAIN)
    ask = asking(runner)
    for index in range(40):
        case = make_case(Key(op, ("geometry", "random")[index % 2], "float32", 7, index))
        actual = ask(case)
        if actual is not None:
            assert diagnose(case, actual, declaration=honest.PLAIN.declaration) == []


@pytest.mark.parametrize("name", ["statistics of each image", "gamma left out", "shards of a batch weigh alike", "momentum inverted"])
def test_a_declared_biased_variance_is_no_part_of_the_diagnosis(name):
    """The target makes the mistake, and blends with the biased estimate in float64, as it declares."""
    mistaken_norm = as_target(mistake_named("batch_norm", name)).batch_norm

    def batch_norm(x, gamma, beta, mean, var, training=False, momentum=0.1, eps=1e-5):
        results = mistaken_norm(x, gamma, beta, mean, var, training, momentum, eps)
        new = 1 - momentum if name == "momentum inverted" else momentum
        blended = (1 - new) * var.astype(np.float64) + new * x.astype(np.float64).var(axis=(0, *range(2, x.ndim)))
        return (*results[:2], blended.astype(x.dtype)) if training else results

    declared = Declaration("biased", dtypes=("float32",), running_variance="biased")
    sweep = run(Job(SimpleNamespace(batch_norm=batch_norm, declaration=declared)), Plan(rounds=1))
    assert sweep.diagnosis["batch_norm"][0].startswith(f"{name} (")


def test_refused_arguments():
    row = mistake_named("batch_norm", "a single value per channel gives NaN")
    assert names(diagnose(row.case, mistaken([row], row.case))) == [row.name]
    assert diagnose(row.case, tuple(np.zeros_like(y) for y in mistaken([row], row.case))) == []


def test_a_race_is_told_from_what_is_always_wrong():
    race, always = mistake_named("conv2d_weight_grad", "only the last image counts, now and then"), mistake_named(
        "conv2d_weight_grad", "only the last image counts")
    for row in (race, always):
        assert diagnose(race.case, mistaken([row], race.case), ask=asking(as_target(row)))[0].name == row.name


def test_the_judge_writes_the_diagnosis_into_its_verdict():
    row = mistake_named("conv2d", "kernel flipped")
    verdict = judge_case(row.case, as_target(row))
    assert verdict.diagnosis[0].startswith("kernel flipped (the same bits); look at: true convolution")


def test_a_target_that_refuses_further_questions_is_diagnosed_all_the_same():
    row = mistake_named("conv2d", "stride of H and W swapped")
    found = diagnose(row.case, mistaken([row], row.case), ask=lambda case: None)
    assert found == diagnose(row.case, mistaken([row], row.case))


def test_cases_of_two_functions_are_refused():
    cases = [mistakes_of(op)[0].case for op in ("conv2d", "linear")]
    with pytest.raises(ArgumentError, match="one function"):
        diagnose_all([(case, np.zeros(1)) for case in cases])


def test_findings_are_the_same_every_time():
    row = mistake_named("conv2d", "stride of H used for W")
    first, second = (diagnose(row.case, mistaken([row], row.case)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("op", OPS)
def test_a_fault_of_no_known_kind_has_no_diagnosis_in_any_function(op):
    """One element off by a third: neither one nor two mistakes do that."""
    case = make_case(Key(op, "random", "float32", 0, 1))
    right = asking(as_target(next(row for row in MISTAKES.values() if row.op != op)))
    (first, *rest) = map(np.copy, right(case))
    first.ravel()[first.size // 2] = first.ravel()[first.size // 2] * np.float32(1.25) + np.float32(0.3)
    assert diagnose(case, (first, *rest)) == []
