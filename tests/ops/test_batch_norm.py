"""Batch normalization against loop twins, exact cases, closed forms, finite differences, and PyTorch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import DTypeError, exact, ops
from npreparam.ops.batch_norm import batch_norm_train
from npreparam.tape import Tensor, check_grads, grad
from tests import naive
from tests.tolerances import assert_same_bits, assert_within, batch_norm_bound, batch_norm_grad_bounds, moments_bounds, relative_bound

EPS = 0.25  # not the default, so that an `eps` dropped on the way is noticed
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SHAPES = st.one_of(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)),
                   st.tuples(st.integers(1, 9), st.integers(1, 3)))


def draw(shape, dtype, seed=0):
    """gy, x, gamma, beta, running mean, running variance."""
    rng = np.random.default_rng(seed)
    c = shape[1]
    values = (rng.standard_normal(shape), 2 * rng.standard_normal(shape) + 5, *rng.standard_normal((3, c)), rng.uniform(0.5, 2, c))
    return [v.astype(dtype) for v in values]


def wide(*arrays):
    """The same values in float64, for the twins, whose own error the bounds then count at the same size: hence 2*bound."""
    return [a.astype(np.float64) for a in arrays]


def over(x):
    return (0, *range(2, x.ndim))


# Exact cases: var + eps is a power of 4, so every operation is exact and == applies.

@pytest.mark.interpreted
@BOTH
def test_exact_training_case(dtype):
    """Values 0..3: mean 1.5, variance 1.25, unbiased 5/3; eps = 2.75 gives sqrt(4) = 2 only when it is added inside the root."""
    x, one = np.arange(4, dtype=dtype).reshape(4, 1), np.ones(1, dtype)
    y, mean, var = ops.batch_norm(x, 4 * one, one, 0 * one, 0 * one, training=True, momentum=0.5, eps=2.75)
    assert (y.ravel() == 2 * (np.arange(4) - 1.5) + 1).all()
    assert mean[0] == 0.75
    assert_within(var, [5 / 6], relative_bound(4, [5 / 6], dtype))


@pytest.mark.interpreted
@BOTH
def test_running_variance_is_unbiased(dtype):
    """Of 0 and 2 the biased variance is 1, the unbiased one 2."""
    x, one = np.array([[0], [2]], dtype), np.ones(1, dtype)
    _, mean, var = ops.batch_norm(x, one, one, 8 * one, 4 * one, training=True, momentum=0.25)
    assert mean[0] == 0.75 * 8 + 0.25 * 1
    assert var[0] == 0.75 * 4 + 0.25 * 2
    assert var[0] != 0.75 * 4 + 0.25 * 1  # what the biased variance would give


@BOTH
def test_momentum_is_the_weight_of_the_new_statistic(dtype):
    x, one = np.array([[0], [2]], dtype), np.ones(1, dtype)
    for momentum, mean, var in ((0, 8, 4), (1, 1, 2)):
        assert [float(v[0]) for v in ops.batch_norm(x, one, one, 8 * one, 4 * one, True, momentum)[1:]] == [mean, var]


def test_running_statistics_are_new_arrays():
    x, one = np.array([[0.0], [2.0]]), np.ones(1)
    mean, var = one.copy(), one.copy()
    y, new_mean, new_var = ops.batch_norm(x, one, one, mean, var, training=True, momentum=0)
    assert mean[0] == var[0] == 1
    assert not any(np.shares_memory(a, b) for a in (new_mean, new_var, y) for b in (mean, var, x))


@pytest.mark.interpreted
@BOTH
def test_evaluation_is_correctly_rounded_on_an_exact_case(dtype):
    x = np.arange(-6, 6).reshape(2, 3, 1, 2).astype(dtype)
    gamma, beta, mean, var = (np.array(v, dtype) for v in ([1, -2, 0.5], [0, 3, -1], [1, 0, -2], [3, 15, 0]))
    assert_same_bits(ops.batch_norm(x, gamma, beta, mean, var, eps=1), exact.batch_norm(x, gamma, beta, mean, var, eps=1))


@BOTH
def test_offset_of_ten_thousand_keeps_the_variance(dtype):
    """The known bug of the one-pass variance, in float32 by 100 %: the truth is 1.25."""
    x, one = (1e4 + np.arange(4)).astype(dtype).reshape(4, 1), np.ones(1, dtype)
    assert batch_norm_train(x, one, one)[2][0] == 1.25
    y = ops.batch_norm(x, one, 0 * one, one, one, training=True, eps=2.75)[0]
    assert (y.ravel() == (np.arange(4) - 1.5) / 2).all()


# Against loop twins, at random.

@given(SHAPES, st.integers(0, 2**32), st.sampled_from([np.float32, np.float64]))
def test_evaluation_against_the_definition(shape, seed, dtype):
    _, x, gamma, beta, mean, var = draw(shape, dtype, seed)
    want = naive.batch_norm(*wide(x, gamma, beta, mean, var), EPS)
    got = ops.batch_norm(x, gamma, beta, mean, var, eps=EPS)
    assert got.dtype == dtype
    assert_within(got, want, 2 * batch_norm_bound(*wide(x, gamma, beta), np.abs(mean), var.astype(np.float64), EPS, dtype))


@given(SHAPES.filter(lambda s: np.prod(s) // s[1] > 1), st.integers(0, 2**32), st.sampled_from([np.float32, np.float64]))
def test_training_against_the_definition(shape, seed, dtype):
    _, x, gamma, beta, running_mean, running_var = draw(shape, dtype, seed)
    x64, gamma64, beta64 = wide(x, gamma, beta)
    mean, var = naive.moments(x64)
    y, new_mean, new_var = ops.batch_norm(x, gamma, beta, running_mean, running_var, training=True, momentum=0.3, eps=EPS)
    assert y.dtype == new_mean.dtype == new_var.dtype == dtype
    assert_within(y, naive.batch_norm(x64, gamma64, beta64, mean, var, EPS),
                  2 * batch_norm_bound(x64, gamma64, beta64, np.abs(x64).mean(over(x)), var, EPS, dtype))
    m = x.size // shape[1]
    of_mean, of_var = moments_bounds(x)
    old_mean, old_var, mean, var = 0.7 * running_mean.astype(float), 0.7 * running_var.astype(float), 0.3 * mean, 0.3 * var * m / (m - 1)
    # old*keep + (statistic*unbiased)*new: at most 6 roundings in the dtype on each path
    assert_within(new_mean, old_mean + mean, 2 * of_mean + relative_bound(6, np.abs(old_mean) + np.abs(mean), dtype))
    assert_within(new_var, old_var + var, 2 * of_var * m / (m - 1) + relative_bound(6, old_var + var, dtype))


def gradients_and_bounds(shape, dtype, training, seed=0):
    gy, x, gamma, _, mean, var = draw(shape, dtype, seed)
    gy64, x64, gamma64, mean64, var64 = wide(gy, x, gamma, mean, var)
    got = ops.batch_norm_grad(gy, x, gamma, mean, var, training, EPS)
    of_mean = np.abs(x64).mean(over(x)) if training else np.abs(mean64)
    if training:
        mean64, var64 = naive.moments(x64)
    want = naive.batch_norm_grad(gy64, x64, gamma64, mean64, var64, EPS, training)
    return got, want, [2 * b for b in batch_norm_grad_bounds(gy64, x64, gamma64, of_mean, var64, EPS, dtype)]


@pytest.mark.interpreted
@given(SHAPES.filter(lambda s: np.prod(s) // s[1] > 1), st.integers(0, 2**32), st.sampled_from([np.float32, np.float64]), st.booleans())
def test_gradients_against_the_definition(shape, seed, dtype, training):
    for got, want, bound in zip(*gradients_and_bounds(shape, dtype, training, seed), strict=True):
        assert got.dtype == dtype
        assert_within(got, want, bound)


def faulty_gradients(x, gy, gamma):
    """Gradients with one term forgotten or mistaken each: what the bounds must tell apart."""
    axes = over(x)
    xhat = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + EPS)
    slope = gamma.reshape(1, -1, 1, 1) / np.sqrt(x.var(axes, keepdims=True) + EPS)
    g0, g1 = gy.mean(axes, keepdims=True), (gy * xhat).mean(axes, keepdims=True)
    unbiased = gamma.reshape(1, -1, 1, 1) / np.sqrt(x.var(axes, keepdims=True, ddof=1) + EPS)
    return {"statistics held fixed": slope * gy, "no mean term": slope * (gy - xhat * g1), "no variance term": slope * (gy - g0),
            "unbiased": unbiased * (gy - g0 - xhat * g1), "gamma forgotten": (gy - g0 - xhat * g1) * slope / gamma.reshape(1, -1, 1, 1)}


def test_the_gradient_bounds_catch_planted_faults():
    gy, x, gamma, *_ = draw((5, 2, 3, 4), np.float64)
    _, want, bounds = gradients_and_bounds((5, 2, 3, 4), np.float64, True)
    for fault in faulty_gradients(x, gy, gamma).values():
        with pytest.raises(AssertionError, match="permitted error"):
            assert_within(fault, want[0], bounds[0])


def test_the_forward_bounds_catch_planted_faults():
    _, x, gamma, beta, mean, var = draw((3, 2, 3, 4), np.float64)
    want = naive.batch_norm(x, gamma, beta, mean, var, EPS)
    bound = 2 * batch_norm_bound(x, gamma, beta, np.abs(mean), var, EPS, np.float64)
    outside = naive.batch_norm(x, gamma, beta, mean, (np.sqrt(var) + EPS) ** 2 - EPS, EPS)
    rounded = naive.batch_norm(x, gamma, beta, mean, var.astype(np.float32).astype(np.float64), EPS)
    batch = naive.batch_norm(x, gamma, beta, *naive.moments(x), EPS)
    for fault in (outside, rounded, batch, naive.batch_norm(x, gamma, beta, mean, var, 0)):
        with pytest.raises(AssertionError, match="permitted error"):
            assert_within(fault, want, bound)


# Closed forms and differentiation.

@BOTH
def test_training_gradient_is_orthogonal_to_ones_and_to_xhat(dtype):
    """sum gx = 0, and with eps = 0 sum gx*xhat = 0: shifting or scaling x does not change y."""
    gy, x, gamma, _, mean, var = draw((4, 3, 5, 6), dtype)
    gx = ops.batch_norm_grad(gy, x, gamma, mean, var, training=True, eps=0.0)[0].astype(np.float64)
    gy, x, gamma = wide(gy, x, gamma)
    bound = batch_norm_grad_bounds(gy, x, gamma, np.abs(x).mean(over(x)), x.var(over(x)), 0.0, dtype)[0]
    xhat = (x - x.mean(over(x), keepdims=True)) / x.std(over(x), keepdims=True)
    assert_within(gx.sum(over(x)), np.zeros(3), 2 * bound.sum(over(x)))
    assert_within((gx * xhat).sum(over(x)), np.zeros(3), 2 * (bound * np.abs(xhat)).sum(over(x)))
    with pytest.raises(AssertionError):  # in evaluation neither holds
        assert_within((gy * gamma.reshape(1, 3, 1, 1)).sum(over(x)), np.zeros(3), 2 * bound.sum(over(x)))


@pytest.mark.parametrize("shape", [(2, 3, 2, 4), (5, 2)])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_of_two_orders(shape, training):
    gy, x, gamma, beta, mean, var = draw(shape, np.float64)
    if training:
        check_grads(lambda x, gamma, beta: ops.batch_norm(x, gamma, beta, mean, var, training=True, eps=EPS)[0], [x, gamma, beta])
        check_grads(lambda gy, x, gamma: ops.batch_norm_grad(gy, x, gamma, mean, var, training=True, eps=EPS), [gy, x, gamma])
    else:
        check_grads(lambda *args: ops.batch_norm(*args, eps=EPS), [x, gamma, beta, mean, var])
        check_grads(lambda *args: ops.batch_norm_grad(*args, eps=EPS), [gy, x, gamma, mean, var])


@pytest.mark.parametrize("training", [False, True])
def test_the_tape_and_batch_norm_grad_give_the_same_bits(training):
    gy, x, gamma, beta, mean, var = draw((3, 2, 4, 5), np.float32)
    tensors = [Tensor(x), Tensor(gamma), Tensor(beta)]
    y = ops.batch_norm(*tensors, mean, var, training)
    for got, want in zip(grad(y[0] if training else y, tensors, gy), ops.batch_norm_grad(gy, x, gamma, mean, var, training), strict=True):
        assert_same_bits(got, want)


def test_new_running_statistics_are_arrays_on_the_tape():
    _, x, gamma, beta, mean, var = draw((3, 2), np.float64)
    _, *new = ops.batch_norm(Tensor(x), gamma, beta, mean, var, training=True)
    assert all(type(v) is np.ndarray for v in new)
    with pytest.raises(DTypeError, match=r"`running_mean` \(a Tensor\)"):
        ops.batch_norm(x, gamma, beta, Tensor(mean), var, training=True)


# PyTorch as a witness from outside.

@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (7, 3)])
@pytest.mark.parametrize("training", [False, True])
def test_pytorch_agrees(shape, training):
    """Both are honest float64 computations, so they differ by at most twice the bound of one."""
    torch = pytest.importorskip("torch")
    gy, x, gamma, beta, mean, var = draw(shape, np.float64)
    tx, tgamma, tbeta = (torch.tensor(v, requires_grad=True) for v in (x, gamma, beta))
    tmean, tvar = torch.tensor(mean), torch.tensor(var)
    ty = torch.nn.functional.batch_norm(tx, tmean, tvar, tgamma, tbeta, training, 0.1, EPS)
    ty.backward(torch.tensor(gy))
    result = ops.batch_norm(x, gamma, beta, mean, var, training, eps=EPS)
    y, *new = result if training else (result, mean, var)
    of_mean, v = (np.abs(x).mean(over(x)), x.var(over(x))) if training else (np.abs(mean), var)
    assert_within(y, ty.detach().numpy(), 2 * batch_norm_bound(x, gamma, beta, of_mean, v, EPS, np.float64))
    m = x.size // shape[1]
    statistics = zip(new, (tmean, tvar), (np.abs(mean) + of_mean, var + v * m / (m - 1)), strict=True)
    for got, want, size in statistics:
        assert_within(got, want.numpy(), 2 * relative_bound(m + 10, size, np.float64))
    bounds = batch_norm_grad_bounds(gy, x, gamma, of_mean, v, EPS, np.float64)
    gradients = ops.batch_norm_grad(gy, x, gamma, mean, var, training, EPS)
    for got, want, bound in zip(gradients, (tx.grad, tgamma.grad, tbeta.grad), bounds, strict=True):
        assert_within(got, want.numpy(), 2 * bound)


def test_defaults_are_pytorchs():
    """momentum = 0.1 and eps = 1e-5 in both doors."""
    gy, x, gamma, beta, mean, var = draw((3, 2), np.float64)
    for training in (False, True):
        forward, backward = (x, gamma, beta, mean, var, training), (gy, x, gamma, mean, var, training)
        for f, args, defaults in ((ops.batch_norm, forward, (0.1, 1e-5)), (ops.batch_norm_grad, backward, (1e-5,))):
            for got, want in zip(f(*args), f(*args, *defaults), strict=True):
                assert_same_bits(got, want)
