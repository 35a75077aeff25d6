import numpy as np
import pytest

from npreparam import ArgumentError, DTypeError, ops
from npreparam.ops._primitive import PRIMITIVES, gradient, primitive
from npreparam.ops.pool import max_pool2d_grad
from npreparam.tape import Tensor, check_grads


def planted(slope_error, curvature_error):
    """sin with gradient rules that are wrong by a factor at first or at second order."""
    @primitive
    def wave(x):
        return np.sin(x)

    @primitive
    def wave_slope(x):
        return np.cos(x)

    gradient(wave, "x", lambda g, y, a: ops.mul(g, ops.mul(wave_slope(a.x), 1 + slope_error)))
    gradient(wave_slope, "x", lambda g, y, a: ops.mul(g, ops.mul(wave(a.x), -(1 + curvature_error))))
    return wave


@pytest.fixture
def _forget_planted():
    yield
    for name in ("wave", "wave_slope"):
        PRIMITIVES.pop(name, None)


@pytest.mark.usefixtures("_forget_planted")
@pytest.mark.parametrize("seed", range(5))
def test_check_grads_catches_a_rule_that_is_wrong_by_a_twentieth_of_a_percent(seed):
    x = [np.random.default_rng(seed).standard_normal(4)]
    check_grads(planted(0, 0), x, rng=seed)
    with pytest.raises(AssertionError, match=r"order 1, argument 0: .* error = .*; permitted error = "):
        check_grads(planted(0.0005, 0), x, rng=seed)
    with pytest.raises(AssertionError, match="order 2, argument 0"):
        check_grads(planted(0, 0.0005), x, rng=seed)


@pytest.mark.parametrize(("f", "x"), [(ops.relu, 1e-5), (ops.log, 1e-6), (ops.sqrt, 1e-6), (ops.exp, 30.0), (lambda x: x * x * x, 0.0)])
def test_near_a_kink_a_pole_or_a_zero_the_step_shrinks_until_a_twentieth_of_a_percent_is_seen(f, x):
    @primitive
    def again(x):
        return x

    del PRIMITIVES["again"]
    gradient(again, "x", lambda g, y, a: ops.mul(g, 1.0005))
    x = [np.full(3, x)]
    check_grads(f, x, order=1)
    if f(x[0]).any():
        with pytest.raises(AssertionError, match=r"order 1, argument 0: .*permitted error = "):
            check_grads(lambda x: again(f(x)), x, order=1)


@pytest.mark.parametrize("f", [ops.relu, ops.sqrt, lambda x: ops.sqrt(ops.square(x))])
def test_where_there_is_no_derivative_the_check_fails(f):
    with pytest.raises(AssertionError, match="order 1, argument 0"):
        check_grads(f, [np.zeros(2)])


def test_differences_that_do_not_settle_say_so():
    with pytest.raises(AssertionError, match=r"order 1, argument 0: central differences do not settle, .*a kink, a pole or noise"):
        check_grads(lambda x: x * np.random.default_rng(int(x.value.sum() * 2**40)).standard_normal(2), [np.ones(2)])


def test_a_wrong_gradient_of_the_cotangent_is_told_from_that_of_the_arguments():
    """A rule that is right, but reaches its cotangent past the tape's sight."""
    @primitive
    def hidden(x):
        return x

    @primitive
    def scaled(x):
        return x

    for f, rule in ((scaled, lambda g, y, a: ops.mul(g, 1.0005)), (hidden, lambda g, y, a: scaled(g))):
        del PRIMITIVES[f.primitive.name]
        gradient(f, "x", rule)
    check_grads(hidden, [np.ones(3)], order=1)
    with pytest.raises(AssertionError, match="order 2, cotangent of order 1: "):
        check_grads(hidden, [np.ones(3)])


def test_check_grads_catches_a_function_that_cuts_the_tape():
    with pytest.raises(AssertionError, match="argument 0"):
        check_grads(lambda x: x.detach() * 2.0 + x * 0.0, [np.ones(3)])


@pytest.mark.usefixtures("_forget_planted")
def test_the_second_of_two_arguments_and_of_two_outputs_is_checked():
    wave = planted(0.0005, 0)
    with pytest.raises(AssertionError, match="order 1, argument 1"):
        check_grads(lambda x, y: (x * x, wave(y)), [np.ones(2), np.ones(3)])


def test_a_rule_that_treats_the_cotangent_nonlinearly_is_caught():
    @primitive
    def same(x):
        return x

    del PRIMITIVES["same"]
    gradient(same, "x", lambda g, y, a: ops.mul(g, ops.add(ops.mul(g, 0.0005), 1.0)))
    with pytest.raises(AssertionError, match="order 1"):
        check_grads(same, [np.ones(3)])


def test_a_rule_that_mixes_up_cotangents_is_caught():
    """It is right for a cotangent of ones, as from the gradient of a sum."""
    @primitive
    def same(x):
        return x

    del PRIMITIVES["same"]
    gradient(same, "x", lambda g, y, a: ops.broadcast_to(ops.mean(g), g.shape))
    with pytest.raises(AssertionError, match="order 1, argument 0"):
        check_grads(same, [np.ones(3)])


def test_an_infinite_tolerance_passes_nothing():
    """x*f'(x) overflows, and no step moves x."""
    with pytest.raises(AssertionError, match="permitted error = inf"):
        check_grads(lambda x: (x - 1e200) * 1e200, [np.full(2, 1e200)])


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_non_finite_numbers_do_not_pass(fault):
    with pytest.raises(AssertionError, match="order 1, argument 0"):
        check_grads(lambda x: x * fault, [np.ones(2)])


def test_a_generator_may_be_given_and_the_same_seed_takes_the_same_directions():
    def points(rng):
        taken = []
        check_grads(lambda x: taken.append(x.value.copy()) or x * x, [np.ones(2)], rng=rng)
        return taken

    for a, b in zip(points(3), points(np.random.default_rng(3)), strict=True):
        assert (a == b).all()
    assert any((a != b).any() for a, b in zip(points(3), points(4), strict=True))


def test_empty_arguments_pass():
    check_grads(lambda x, y: ops.sum(x * x) + ops.sum(y), [np.zeros((0, 3)), np.ones(2)])


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: check_grads(ops.exp, [np.ones(2, np.float32)]), DTypeError, "differences need float64"),
    (lambda: check_grads(ops.exp, [np.ones(2)], order=0), ArgumentError, r"`order` \(=0\) must be at least 1"),
    (lambda: check_grads(lambda x: x.value, [np.ones(2)]), AssertionError, "does not depend on its arguments through differentiable"),
    (lambda: check_grads(lambda x: max_pool2d_grad(np.ones((1, 1, 1, 1)), x, 2), [np.ones((1, 1, 2, 2))]), ArgumentError,
     "not differentiable"),
])
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_tensors_may_be_given_for_arrays():
    check_grads(ops.exp, [Tensor(np.ones(2))])
