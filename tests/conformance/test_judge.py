"""The judge is judged: honest targets pass, every way of being wrong has its verdict."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, ops
from npreparam.certified import bounds
from npreparam.certified.bounds import FLOAT64, TF32, likely
from npreparam.conformance import Case, Declaration, Key, Level, judge_case
from npreparam.conformance.cases import keys, make_case
from npreparam.conformance.isolation import Isolated
from npreparam.conformance.runner import InProcess, Question, Reply
from npreparam.conformance.signatures import OPS
from npreparam.conformance.sweep import judged, round_keys
from npreparam.conformance.wire import pack_hello, pack_reply, unpack_hello, unpack_reply
from tests.certified import simulate
from tests.conformance import honest, misbehaving

X = np.float32([[0.5, -2.0, 3.0], [0.0, 1.0, -0.25]])
ANYTHING = Case("tanh", {"x": X})


def failures(target, wanted, profile=None):
    runner = InProcess(target)
    verdicts = [judged(key, runner, profile)[1] for key in wanted]
    assert any(verdict.level is not Level.ABSENT for verdict in verdicts)
    return [(str(verdict.key), verdict.explanation) for verdict in verdicts if not verdict.conforms]


def test_npreparam_itself_conforms():
    wanted = [*round_keys(0, dtypes=["float32"]), *(key for key in round_keys(1, dtypes=["float64"], seed=1)
                                                    if key.phase != "search" or key.op in ("conv2d", "batch_norm_grad"))]
    assert failures("npreparam", wanted) == []


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_plain_numpy_conforms(dtype):
    """Every operation rounded to float16 is the profile of float16 sums; log_softmax of NumPy's float16 rounds every step."""
    target = SimpleNamespace(**{**vars(honest.PLAIN), "declaration": Declaration("plain", dtypes=("float16", "float32", "float64"),
                                                                                 profiles={"float16": "float16_float16"})})
    wanted = [key for key in round_keys(1, OPS, [dtype], seed=2) if key.phase != "search"]
    assert failures(target, wanted) == []


@pytest.mark.parametrize("style", simulate.STYLES)
def test_any_order_with_fused_operations_or_without_conforms(style):
    wanted = [key for phase in ("exact", "geometry", "random") for key in keys("conv2d", phase, "float32", 0, range(12))]
    assert failures(honest.machine(style, bounds.FLOAT32), wanted) == []


@pytest.mark.parametrize(("m", "profile"), [(2, bounds.WINOGRAD_F2_3), (4, bounds.WINOGRAD_F4_3), (6, bounds.WINOGRAD_F6_3)])
def test_winograd_conforms_under_its_own_profile(m, profile):
    wanted = [Key("conv2d", phase, "float32", 0, i) for phase, i in [("geometry", 0), ("geometry", 6), ("geometry", 30), ("geometry", 32)]]
    wanted += [Key("conv2d", "random", "float32", seed, i) for seed in range(4) for i in range(8)]
    assert failures(honest.by_winograd(m, profile), wanted) == []


def test_winograd_under_a_direct_profile_fails_and_is_explained():
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 1, 12, 12), (1, 1, 3, 3)))
    verdict = judge_case(Case("conv2d", {"x": x, "w": w}), honest.by_winograd(6, bounds.FLOAT32))
    assert verdict.level is Level.FAIL
    assert verdict.profile.startswith("Winograd")


@pytest.mark.parametrize(("name", "dtype"), [("tf32", "float64"), ("float16_float16", "float32")])
def test_an_arithmetic_without_the_numbers_of_a_case_leaves_it_out(name, dtype):
    """Batch norm in a narrower accumulator: of what numbers, nobody says. Convolutions round their operands, which the arithmetic tells."""
    profile, runner = bounds.profile_named(name), InProcess("npreparam")
    for op, levels in (("batch_norm", {Level.ABSENT}), ("linear", {Level.EXACT, Level.OK})):
        verdicts = [judge_case(make_case(Key(op, "random", dtype, 0, index)), runner, profile) for index in range(3)]
        assert {verdict.level for verdict in verdicts} <= levels
    assert "does not have these numbers: `x` holds numbers that are no" in judge_case(make_case(Key("batch_norm", "random", dtype, 0, 0)), runner,
                                                                                     profile).explanation
    with pytest.raises(ArgumentError):
        judge_case(Case("linear", {"x": np.ones((1, 2)), "w": np.ones((1, 3))}), SimpleNamespace(linear=lambda x, w: x @ w.T[:2]), profile)


@pytest.mark.parametrize(("rounding", "name"), [("tf32", "TF32 inputs"), ("bfloat16", "bfloat16 inputs"), ("float16", "float16 inputs")])
def test_rounded_operands_are_named(rounding, name):
    """Operands of 11 bits are TF32's and, in the range of float16, float16's alike: the one with the wider range is named."""
    def conv2d(x, w, b=None, **rest):
        return ops.conv2d(*(simulate.rounded(v.astype(np.float64), rounding).astype(v.dtype) for v in (x, w)), b, **rest)

    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 8, 6, 6), (4, 8, 3, 3)))
    if rounding == "float16":
        x[0, 0, 0, 0] = 2.0**-16 * (1 + 2.0**-10)  # subnormal there
    verdict = judge_case(Case("conv2d", {"x": x, "w": w}), SimpleNamespace(conv2d=conv2d))
    assert verdict.level is Level.FAIL
    assert verdict.profile in (name, "TF32 inputs" if name == "float16 inputs" else name)
    assert f"consistent with {verdict.profile}" in verdict.explanation


def test_flushed_subnormals_are_named():
    def flushed(x):
        y = np.tanh(x)
        return np.where(np.abs(y) < np.finfo(x.dtype).tiny, x.dtype.type(0), y)

    verdict = judge_case(Case("tanh", {"x": np.float32([1e-40, 0.3])}), SimpleNamespace(tanh=flushed))
    assert verdict.level is Level.FAIL
    assert verdict.profile == "subnormal numbers flushed to zero"


@pytest.mark.parametrize(("name", "level", "words"), [
    ("shape", Level.ERROR, "has shape (2, 3, 1), but must have shape (2, 3)"), ("dtype", Level.ERROR, "has dtype float64"),
    ("nan", Level.FAIL, "every element of `y` is NaN"), ("view", Level.ERROR, "is a view of its argument `x`"),
    ("mutates", Level.ERROR, "changes its argument `x`"), ("raises", Level.ERROR, "raises RuntimeError: no kernel for this"),
    ("leaves", Level.ERROR, "raises SystemExit: enough"), ("listed", Level.ERROR, "is a list, no NumPy array"),
    ("missing", Level.ABSENT, "not implemented: tanh comes later"), ("objects", Level.ERROR, "dtype object, whose elements are no numbers"),
    ("unspeakable", Level.ERROR, "raises MuteError: (its text raises ValueError)")])
def test_what_a_target_should_not_do_has_a_verdict(name, level, words):
    before = X.copy()
    verdict = judge_case(ANYTHING, misbehaving.targets[name])
    assert verdict.level is level
    assert words in verdict.explanation
    assert (before == X).all()


@pytest.mark.parametrize(("name", "level", "words"), [
    ("aborts", Level.CRASH, "SIGABRT"), ("hangs", Level.TIMEOUT, "no answer within"), ("prints", Level.EXACT, ""),
    ("leaves", Level.ERROR, "SystemExit"), ("interrupts", Level.CRASH, "SIGINT"), ("objects", Level.ERROR, "whose elements are no numbers"),
    ("writes", Level.CRASH, "writes into the judge's pipe")])
def test_an_isolated_target_does_not_take_the_judge_with_it(name, level, words):
    runner = Isolated(f"tests.conformance.misbehaving:target_{name}", seconds=3.0 if name == "hangs" else 30.0)
    try:
        verdict = judge_case(ANYTHING, runner)
        assert verdict.level in (level, Level.OK if level is Level.EXACT else level)
        assert words in verdict.explanation
        if name in ("aborts", "hangs"):  # and the run goes on
            assert judge_case(Case("tanh", {"x": X[:1, :1]}), runner).conforms
    finally:
        runner.close()


@pytest.mark.parametrize("name", ["objects", "writes"])
def test_nothing_that_a_target_sends_is_executed(name, tmp_path, monkeypatch):
    left = tmp_path / "left"
    monkeypatch.setenv("NPREPARAM_HOSTILE", str(left))
    pickle.loads(pickle.dumps(misbehaving.Hostile()))
    assert left.exists()  # planted: what unpickling would do
    left.unlink()
    runner = Isolated(f"tests.conformance.misbehaving:target_{name}")
    assert not judge_case(ANYTHING, runner).conforms
    runner.close()
    assert not left.exists()


def test_threads_that_cannot_be_set_are_an_error_of_the_target():
    def refuse(threads):
        raise RuntimeError("no threads")

    reply = InProcess(SimpleNamespace(tanh=np.tanh, set_threads=refuse)).ask(Question("tanh", {"x": X}, threads=2))
    assert reply.level is Level.ERROR
    assert "raises RuntimeError: no threads" in reply.explanation


@given(st.binary(max_size=60) | st.tuples(st.integers(0, 80), st.binary(max_size=80)).map(lambda n: n[0].to_bytes(8, "little") + n[1]))
def test_noise_is_no_message(noise):
    for unpack in (unpack_reply, unpack_hello):
        with pytest.raises(ValueError, match=r"no (reply|declaration): "):
            unpack(noise)


def test_messages_come_back_as_they_were():
    arrays = (np.float32([[1, np.nan]]), np.empty((0, 3)), np.array(2.5), np.array([True]), np.array([1 + 2j]))
    reply = unpack_reply(pack_reply(Reply(arrays, Level.ERROR, "why")))
    assert reply[1:] == (Level.ERROR, "why")
    for one, other in zip(arrays, reply.outputs, strict=True):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    declaration = Declaration("mine", "1", ("float32",), {"*": ("groups",)}, profiles={"float32": TF32, "float64": likely(FLOAT64)}, seconds=2.0)
    assert unpack_hello(pack_hello(declaration, ("tanh",))) == (declaration, ("tanh",))


def test_a_target_that_changes_its_mind_is_suspect():
    """By one ulp, which is within the bound of tanh."""
    misbehaving.KEPT.clear()
    verdict = judge_case(Case("tanh", {"x": X}, relation="repeat"), misbehaving.targets["forgets"])
    assert (verdict.level, verdict.explanation) == (Level.SUSPECT, "not the same bits twice")


def wrong_by(op, fault):
    """npreparam's function with the last element of its last result made wrong."""
    def function(*arguments, **keywords):
        result = getattr(honest.PLAIN if op.startswith("fuse") else ops, op)(*arguments, **keywords)
        results = [np.array(part) for part in (result if isinstance(result, tuple) else (result,))]
        if results[-1].size:
            results[-1].reshape(-1)[-1] = fault(results[-1].reshape(-1)[-1])
        return tuple(results) if isinstance(result, tuple) else results[0]

    return SimpleNamespace(**{op: function})


@pytest.mark.parametrize("op", OPS)
def test_one_wrong_element_of_any_function_is_found(op):
    """NaN in one element, or one off by 2^-10 of itself and a little."""
    wanted = keys(op, "random", "float32", 0, [0, 1])
    for fault in (lambda value: np.nan, lambda value: value * np.float32(1 + 2.0**-10) + np.float32(2.0**-10)):
        assert failures(wrong_by(op, fault), wanted)


def test_zero_tolerance_finds_what_the_bound_allows():
    """One ulp on integers: honest rounding explains it, but on such data there is none."""
    case = make_case(Key("conv2d", "geometry", "float32", 0, 0))
    target = wrong_by("conv2d", lambda value: np.nextafter(value, np.float32(np.inf)))
    assert case.exact
    assert judge_case(case, target).level is Level.FAIL
    assert judge_case(Case("conv2d", case.arguments), target).conforms


def test_inner_products_convict_the_forward_function():
    """The gradient is right, so only the identity can show that conv2d is not."""
    target = SimpleNamespace(conv2d=lambda *a, **k: -ops.conv2d(*a, **k), conv2d_input_grad=ops.conv2d_input_grad)
    verdict = judge_case(make_case(Key("conv2d_input_grad", "adjoint", "float64", 0, 1)), target)
    assert verdict.level is Level.FAIL
    assert "<gy, conv2d(x, w)> is" in verdict.explanation


@pytest.mark.parametrize(("relation", "fault"), [
    ("batch split", lambda x, y: y * (len(x) > 1)), ("channel permutation", lambda x, y: y * (y[0, 0, 0, 0] > y[0, 1, 0, 0]))])
def test_relations_ask_what_one_call_does_not(relation, fault):
    """Targets that are right on the plain question, and wrong on the one in another order or in parts."""
    x = np.ones((2, 1, 2, 2), np.float32)
    w = np.float32([2, 1]).reshape(2, 1, 1, 1)
    target = SimpleNamespace(conv2d=lambda x, w, b=None: fault(x, ops.conv2d(x, w, b)))
    assert judge_case(Case("conv2d", {"x": x, "w": w}), target).conforms
    assert judge_case(Case("conv2d", {"x": x, "w": w}, relation=relation), target).level is Level.FAIL


@pytest.mark.parametrize("layout", ["strided", "reversed", "channels_last"])
def test_a_target_that_reads_memory_as_it_lies_is_found(layout):
    def conv2d(x, w, b=None):
        base = x
        while isinstance(base.base, np.ndarray):
            base = base.base
        return ops.conv2d(np.ascontiguousarray(base).reshape(-1)[: x.size].reshape(x.shape), np.ascontiguousarray(w), b)

    x = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    arguments = {"x": x, "w": np.ones((1, 3, 1, 1), np.float32)}
    target = SimpleNamespace(conv2d=conv2d)
    assert judge_case(Case("conv2d", arguments), target).level is Level.EXACT
    got = judge_case(Case("conv2d", {**arguments, "w": np.float32([1, 2, 4]).reshape(1, 3, 1, 1)}, layout=layout), target)
    assert got.level is Level.FAIL


def test_prefilled_output_shows_a_product_with_what_was_there():
    def conv2d(x, w, b=None, out=None):
        y = ops.conv2d(x, w, b)
        return y if out is None else y + 0 * out

    target = SimpleNamespace(conv2d=conv2d, declaration=Declaration("beta 0", out=("conv2d",)))
    case = Case("conv2d", {"x": np.ones((1, 1, 2, 2)), "w": np.ones((1, 1, 1, 1))}, relation="prefilled")
    assert judge_case(case, target).level is Level.FAIL


def test_declared_conventions_are_kept():
    """The same batch norm with the old statistic's weight and the biased variance: wrong as it is, right when declared."""
    def batch_norm(x, gamma, beta, running_mean, running_var, training=False, momentum=0.9, eps=1e-5):
        if not training:
            return honest.batch_norm(x, gamma, beta, running_mean, running_var, eps=eps)
        y, mean, _ = honest.batch_norm(x, gamma, beta, running_mean, running_var, True, 1 - momentum, eps)
        over = (0, *range(2, x.ndim))
        return y, mean, (momentum * running_var + (1 - momentum) * x.var(over)).astype(x.dtype)

    wanted = [key for key in keys("batch_norm", "random", "float64", 0, range(64)) if make_case(key).name.startswith("normal")]
    plain = SimpleNamespace(batch_norm=batch_norm)
    declared = SimpleNamespace(batch_norm=batch_norm, declaration=Declaration("old", momentum="old", running_variance="biased"))
    assert failures(plain, wanted)
    assert failures(declared, wanted) == []


def test_unsupported_features_are_absent_not_wrong():
    target = SimpleNamespace(conv2d=lambda x, w, b=None: ops.conv2d(x, w, b), declaration=Declaration("small", unsupported={
        "conv2d": ("stride", "padding", "dilation", "groups")}))
    runner = InProcess(target)
    verdicts = [judged(key, runner)[1] for key in keys("conv2d", "geometry", "float32", 0, range(40))]
    assert {verdict.level for verdict in verdicts} == {Level.EXACT, Level.ABSENT}
    assert any("declared unsupported: dilation" in verdict.explanation for verdict in verdicts)
