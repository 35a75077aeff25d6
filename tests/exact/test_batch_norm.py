"""The correctly rounded batch norm, judged without its own arithmetic: by squares of halfway points, and by mpmath at 400 bits."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, DTypeError, ShapeError, exact
from npreparam.exact.batch_norm import FIRST_BITS, rational_sqrt, sqrt_between


def neighbours(y):
    """Midpoints to the float below and above, as fractions."""
    below, above = (Fraction(float(np.nextafter(y, y.dtype.type(to)))) for to in (-np.inf, np.inf))
    return (below + Fraction(float(y))) / 2, (above + Fraction(float(y))) / 2


def exceeds(t, v, bound):
    """t/sqrt(v) > bound, decided in integers: compare the signed squares."""
    left, right = t * abs(t), bound * abs(bound) * v
    return left > right


def certify(y, x, gamma, beta, mean, var, eps):
    """halfway down <= t/sqrt(v) + beta <= halfway up."""
    t = (Fraction(float(x)) - Fraction(float(mean))) * Fraction(float(gamma))
    v = Fraction(float(var)) + Fraction(float(eps))
    low, high = (middle - Fraction(float(beta)) for middle in neighbours(y))
    assert not exceeds(-t, v, -low)  # t/sqrt(v) >= low
    assert not exceeds(t, v, high)


numbers = st.floats(-1e6, 1e6, width=32).map(lambda v: v if abs(v) > 1e-6 else 0.0)


variances, smoothing, kinds = st.floats(0, 1e6, width=32), st.sampled_from([0.5, 1e-5, 1e-3]), st.sampled_from([np.float32, np.float64])


@given(numbers, numbers, numbers, numbers, variances, smoothing, kinds)
def test_certificate(x, gamma, beta, mean, var, eps, kind):
    args = [np.array([v], kind) for v in (gamma, beta, mean, var)]
    y = exact.batch_norm(np.array([[x]], kind), *args, eps=eps)
    certify(y[0, 0], np.array(x, kind), *(a[0] for a in args), eps)


def test_a_planted_ulp_is_caught():
    args = (np.float32(1.5), np.float32(0.7), np.float32(-0.3), np.float32(0.1), np.float32(2.0), 1e-5)
    y = exact.batch_norm(np.array([[args[0]]]), *(np.array([a]) for a in args[1:5]), eps=1e-5)[0, 0]
    certify(y, *args)
    for wrong in (np.nextafter(y, np.float32(np.inf)), np.nextafter(y, np.float32(-np.inf))):
        with pytest.raises(AssertionError):
            certify(wrong, *args)


def test_mpmath_agrees():
    mpmath = pytest.importorskip("mpmath")
    rng = np.random.default_rng(0)
    x, (gamma, beta, mean), var = rng.standard_normal((2, 3, 2, 2)), rng.standard_normal((3, 3)), rng.random(3)
    y = exact.batch_norm(x, gamma, beta, mean, var)
    with mpmath.workprec(400):
        for (n, c, i, j), value in np.ndenumerate(y):
            want = (mpmath.mpf(x[n, c, i, j]) - mean[c]) / mpmath.sqrt(mpmath.mpf(var[c]) + mpmath.mpf(1e-5)) * gamma[c] + beta[c]
            assert value == float(want)


def test_rational_roots_are_exact():
    assert rational_sqrt(Fraction(9, 4)) == Fraction(3, 2)
    assert rational_sqrt(Fraction(2)) is None
    # Odd multiples of 2^-24 are ties between two float32, and only exact arithmetic sees them; one goes down to even, the other up.
    for tie, even in ((1 + 2.0**-24, 1), (1 + 3 * 2.0**-24, 1 + 2.0**-22)):
        assert exact.batch_norm(np.array([[tie]]), [1], [0], [0], [1], eps=0, out_dtype=np.float32).item() == even
        assert exact.batch_norm(np.array([[tie * 0.75]]), [1], [0], [0], [0.3125], eps=0.25, out_dtype=np.float32).item() == even


@given(st.fractions(min_value=Fraction(1, 10**30), max_value=10**30), st.integers(2, 200))
def test_brackets_of_the_square_root(v, bits):
    if rational_sqrt(v) is None:
        low, high = sqrt_between(v, bits)
        assert low * low < v < high * high
        assert (high - low) * 2 ** (bits - 1) <= high


@pytest.mark.parametrize("sign", [1, -1])
def test_cancellation_beyond_the_first_precision(sign):
    """beta agrees with 1/sqrt(2) to 300 bits, so that the first brackets cannot even tell the sign of the result."""
    low, high = sqrt_between(Fraction(1, 2), 300)
    beta = -(low if sign > 0 else high)
    assert FIRST_BITS < 300
    y = exact.batch_norm(np.array([[1.0]]), [1], np.array([beta]), [0], [2], eps=0)[0, 0]
    assert np.sign(y) == sign
    below, above = (middle - beta for middle in neighbours(y))
    assert not exceeds(-1, 2, -below)
    assert not exceeds(1, 2, above)


def test_both_ends_of_the_range():
    """Multiples of 1/sqrt(2) = 0.707...: subnormal numbers, the sign of zero, and overflow to infinity."""
    tiny, huge = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    x = np.array([[10 * tiny], [tiny], [-tiny], [huge]])
    y = exact.batch_norm(x, [1], [0], [0], [2], eps=0)
    assert y[:3, 0].tolist() == [7 * tiny, tiny, -tiny]
    certify(y[3, 0], x[3, 0], 1.0, 0.0, 0.0, 2.0, 0.0)
    y = exact.batch_norm(x, [-0.5], [0], [0], [2], eps=0)  # half of the above: 3.54, 0.354
    assert y[:3, 0].tolist() == [-4 * tiny, 0, 0]
    assert np.signbit(y[:3, 0]).tolist() == [True, True, False]
    assert exact.batch_norm(x[3:], [-2], [0], [0], [2], eps=0).item() == -np.inf


@pytest.mark.parametrize("kind", [np.float16, "bfloat16"])
def test_narrow_results_are_not_rounded_twice(kind):
    """1 + half a spacing + t/sqrt(2) with a t of 2^-100: float64 in between would see a tie and round to even."""
    if kind == "bfloat16":
        pytest.importorskip("ml_dtypes")
    spacing = {np.float16: 2.0**-10, "bfloat16": 2.0**-7}[kind]
    y = exact.batch_norm(np.array([[2.0**-100], [-(2.0**-100)]]), [1], [1 + spacing / 2], [0], [2], eps=0, out_dtype=kind)
    assert y.astype(np.float64)[:, 0].tolist() == [1 + spacing, 1]


def test_eps_is_the_number_that_it_is():
    args = (np.array([[1.0]]), [1], [0], [0], [0])
    assert exact.batch_norm(*args, eps=np.float32(0.1)) == exact.batch_norm(*args, eps=float(np.float32(0.1)))
    assert exact.batch_norm(*args, eps=np.float32(0.1)) != exact.batch_norm(*args, eps=0.1)
    with pytest.raises(ArgumentError, match="`eps` holds NaN"):
        exact.batch_norm(*args, eps=np.nan)


def test_bad_input():
    with pytest.raises(DTypeError, match=r"`out_dtype` \(='None'\)"):
        exact.batch_norm(np.ones((1, 1)), [1], [0], [0], [1], out_dtype=None)
    with pytest.raises(ArgumentError, match="must be positive"):
        exact.batch_norm(np.ones((1, 1)), [1], [0], [0], [-1], eps=0)
    with pytest.raises(ArgumentError, match=r"`running_var` \+ `eps` \(=0.0\) of channel 1 must be positive"):
        exact.batch_norm(np.ones((1, 2)), [1, 1], [0, 0], [0, 0], [1, 0], eps=0)
    with pytest.raises(ShapeError, match=r"`eps` has shape \(2,\)"):
        exact.batch_norm(np.ones((1, 1)), [1], [0], [0], [1], eps=[1.0, 2.0])
    with pytest.raises(ShapeError, match="statistics"):
        exact.batch_norm(np.ones((1, 2)), [1], [0], [0], [1])
