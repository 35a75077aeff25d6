"""Activations: fifty-digit truth, special values, and PyTorch as a witness."""

import mpmath
import numpy as np
import pytest

from npreparam import DTypeError, ops
from npreparam.tape import Tensor, grad
from tests.tolerances import assert_same_bits, assert_within, function_bound
from tests.truth import POINTS, assert_ulps, elementwise

DTYPES = [np.float32, np.float64]

# name -> (truth, its derivative, ulps of the value, ulps of the slope)
#   sigmoid: exp 1, sum 1/2, quotient 1/2, and exp's error twice in the sum: 3. slope y*sigmoid(-x): 3 + 3 + 1/2
#   softplus: exp 1 and log1p 1, sum 1/2, the two logs' condition <= 1: 4. tanh: NumPy's, 2; slope 4*s(2x)*s(-2x): 2x exact, 3 + 3 + 1: 8
#   silu: product with sigmoid 4; slope s + x*s*(1-s): 8 of the sum of the magnitudes (it has a zero near -1.28)
TRUTH = {
    "sigmoid": (lambda x: 1 / (1 + mpmath.exp(-x)), lambda x: 1 / (2 + mpmath.exp(x) + mpmath.exp(-x)), 3, 8),
    "softplus": (lambda x: mpmath.log1p(mpmath.exp(x)), lambda x: 1 / (1 + mpmath.exp(-x)), 4, 4),
    "tanh": (mpmath.tanh, lambda x: mpmath.sech(x) ** 2, 2, 8),
    "silu": (lambda x: x / (1 + mpmath.exp(-x)), None, 4, None),
}


def slope(f, x):
    x = Tensor(x)
    return grad(ops.sum(f(x)), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TRUTH)
def test_value_is_true_to_a_few_ulps(name, dtype):
    truth, _, ulps, _ = TRUTH[name]
    x = POINTS.astype(dtype)
    assert_ulps(getattr(ops, name)(x), elementwise(truth, x), ulps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in TRUTH if TRUTH[name][1]])
def test_slope_is_true_to_a_few_ulps(name, dtype):
    _, derivative, _, ulps = TRUTH[name]
    x = (POINTS / 2 if name == "tanh" else POINTS).astype(dtype)  # sech(x)^2 is about 4*exp(-2x)
    assert_ulps(slope(getattr(ops, name), x), elementwise(derivative, x), ulps)


def test_slope_of_silu_is_true_to_a_few_ulps_of_its_terms():
    x = POINTS
    s = elementwise(lambda x: 1 / (1 + mpmath.exp(-x)), x)
    terms = np.abs(s.astype(float)) * (1 + np.abs(x))
    assert_ulps(slope(ops.silu, x), s + x * s * (1 - s), 8, floor=terms)


def naive_softplus(x):
    return np.log(1 + np.exp(x))


def naive_sigmoid(x):
    return 1 - 1 / (1 + np.exp(x))


@pytest.mark.parametrize(("name", "naive"), [("softplus", naive_softplus), ("sigmoid", naive_sigmoid)])
def test_the_textbook_formulas_are_caught(name, naive):
    x = POINTS.astype(np.float32)
    truth, _, ulps, _ = TRUTH[name]
    with pytest.raises(AssertionError, match="permitted error"):
        assert_ulps(naive(x), elementwise(truth, x), ulps)


def test_softplus_at_the_arguments_where_the_textbook_fails_in_float32():
    y = ops.softplus(np.array([89, -17], np.float32))
    assert y[0] == 89
    assert_ulps(y[1:], elementwise(lambda x: mpmath.log1p(mpmath.exp(x)), np.array([-17.0])), 4)


def test_far_out_nothing_overflows_and_small_values_stay():
    far = np.array([-3e38, -100, 100, 3e38], np.float32)
    assert ops.sigmoid(far)[1] > 0  # exp(-100) is a subnormal float32
    assert (ops.sigmoid(far)[[0, 2, 3]] == [0, 1, 1]).all()
    assert (ops.softplus(far)[[0, 2, 3]] == [0, 100, far[3]]).all()
    assert (ops.tanh(far) == [-1, -1, 1, 1]).all()
    assert (ops.silu(far)[[0, 2, 3]] == [0, 100, far[3]]).all()
    for f in (ops.sigmoid, ops.softplus, ops.tanh, ops.silu, ops.relu, ops.leaky_relu):
        assert np.isfinite(slope(f, far)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(dtype):
    x = np.array([np.nan, np.inf, -np.inf], dtype)
    expected = {ops.relu: [np.nan, np.inf, 0], ops.leaky_relu: [np.nan, np.inf, -np.inf], ops.sigmoid: [np.nan, 1, 0],
                ops.tanh: [np.nan, 1, -1], ops.softplus: [np.nan, np.inf, 0], ops.silu: [np.nan, np.inf, np.nan]}
    for f, y in expected.items():
        assert f(x).dtype == dtype
        np.testing.assert_array_equal(f(x), np.array(y, dtype), err_msg=f.primitive.name if hasattr(f, "primitive") else "silu")


def test_derivatives_at_the_kink():
    x = np.array([-2.0, -0.0, 0.0, 3.0])
    assert (slope(ops.relu, x) == [0, 0, 0, 1]).all()
    assert (slope(lambda x: ops.leaky_relu(x, 0.25), x) == [0.25, 0.25, 0.25, 1]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_and_leaky_relu_exactly(dtype):
    x = np.arange(-8, 9).astype(dtype)
    assert_same_bits(ops.relu(x), np.array([max(0, i) for i in range(-8, 9)], dtype))
    assert_same_bits(ops.leaky_relu(x, 0.5), np.array([i if i > 0 else i * 0.5 for i in range(-8, 9)], dtype))


def test_a_nan_reaches_the_gradient():
    x = np.array([np.nan, 1.0])
    for f in (ops.relu, ops.leaky_relu, ops.sigmoid, ops.tanh, ops.softplus, ops.silu):
        assert np.isnan(slope(f, x)).tolist() == [True, False]


@pytest.mark.parametrize("f", [ops.relu, ops.leaky_relu, ops.sigmoid, ops.tanh, ops.softplus, ops.silu])
def test_bad_arguments(f):
    with pytest.raises(DTypeError, match="`x` has dtype int64"):
        f(np.arange(3))
    with pytest.raises(DTypeError, match=r"`x` \(a list\)"):
        f([1.0])
    assert f(np.zeros((0, 3), np.float32)).shape == (0, 3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["relu", "leaky_relu", "sigmoid", "tanh", "softplus", "silu"])
def test_pytorch_agrees(name, dtype):
    """Both are within some ulps of the truth: 8 for the sum of the two errors, of the terms' magnitude 1 + |x| where a slope has a zero."""
    torch = pytest.importorskip("torch")
    x = np.linspace(-15, 15, 301).astype(dtype)  # PyTorch's softplus becomes linear at 20
    witness = torch.tensor(x, requires_grad=True)
    y = getattr(torch.nn.functional, name)(witness)
    y.sum().backward()
    ours = getattr(ops, name)
    assert_within(ours(x), y.detach().numpy(), function_bound(8, ours(x), dtype))
    assert_within(slope(ours, x), witness.grad.numpy(), function_bound(8, 1 + np.abs(x), dtype))
