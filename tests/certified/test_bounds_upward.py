"""Every bound is at least its formula over the rationals, and hardly more: the float64 arithmetic in between only errs upwards."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import exact
from npreparam.certified.bounds import BFLOAT16_FLOAT32, FFT_FLOAT32, FLOAT32, FLOAT64, TF32, WINOGRAD_F2_3, WINOGRAD_F4_3, WINOGRAD_F6_3
from npreparam.certified.bounds.batch_norm import AFFINE
from npreparam.certified.bounds.winograd import transforms
from npreparam.exact.roots import sqrt_between
from tests.certified.transforms import winograd
from tests.certified.verdict import float32_bounds as bounds

SLACK = Fraction(1, 2**35)  # `up` adds (n + 202)*2^-52 for each quantity, and a formula has a few dozen of them
COARSE = Fraction(1, 2**20)  # where a formula here leaves terms of second order out, or the bound knows a small difference but to 2^-53 of its parts


def assert_just_above(bound, formula, slack=SLACK):
    """formula <= bound <= formula*(1 + slack) + a few subnormal numbers, elementwise over the rationals."""
    for got, want in zip(np.ravel(bound).tolist(), np.ravel(formula), strict=True):
        assert want <= Fraction(got) <= want * (1 + slack) + Fraction(1, 2**1060), f"bound {got} of the formula {float(want)}"


def compound(k, u):
    return 1 / (1 - Fraction(u)) ** k - 1


def plus(f, g):
    return f + g + f * g


def magnitudes(*arrays):
    return [np.abs(exact.as_fractions(a, "a")) for a in arrays]


shapes = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(3, 6))


@pytest.mark.parametrize("profile", [FLOAT32, FLOAT64], ids=["FLOAT32", "FLOAT64"])
@pytest.mark.parametrize("scale", [1.0, 2.0**-60, 2.0**-500])
def test_products(profile, scale):
    """n*u*(S + n*eta) + n*eta; with FLOAT64 the sum S is itself rounded at every step, and underflows at the last scale."""
    if profile is FLOAT32 and scale < 2.0**-100:
        scale = 2.0**-70
    rng, eta = np.random.default_rng(0), Fraction(2) ** (-149 if profile is FLOAT32 else -1074)
    dtype = np.float32 if profile is FLOAT32 else np.float64
    x, w, b = (rng.standard_normal(s).astype(dtype) * dtype(scale) for s in ((1, 30, 4, 4), (2, 30, 3, 3), (2,)))
    size = exact.conv2d(*magnitudes(x, w, b), padding=1, out_dtype=None)
    taps = exact.conv2d(np.ones((1, 30, 4, 4)), np.ones((2, 30, 3, 3)), padding=1, out_dtype=None)
    growth = (taps + 1) * Fraction(profile.unit)
    assert_just_above(bounds.conv2d_bound(x, w, b, padding=1, profile=profile), growth * (size + taps * eta) + taps * eta)
    if profile is FLOAT32:  # a bias in float64 is rounded first
        wide = b.astype(np.float64) * (1 + 2.0**-40)
        moved = (Fraction(profile.unit) * magnitudes(wide)[0] + eta).reshape(-1, 1, 1)
        size = exact.conv2d(*magnitudes(x, w, wide), padding=1, out_dtype=None) + moved
        assert_just_above(bounds.conv2d_bound(x, w, wide, padding=1), growth * (size + taps * eta) + taps * eta + moved)


def test_gradients():
    """n*u*S, n the products of an element: counted by the exact gradients of ones."""
    rng, geometry = np.random.default_rng(1), (2, ((1, 0), (1, 1)), 1, 2)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((3, 4, 5, 5), (4, 2, 3, 2)))
    gy = rng.standard_normal(exact.conv2d(x, w, None, *geometry).shape).astype(np.float32)
    ones = [np.ones(v.shape) for v in (gy, x, w)]
    for gradient, bound, p, q, one, shape in (
            (exact.conv2d_input_grad, bounds.conv2d_input_grad_bound, gy, w, ones[2], x.shape),
            (exact.conv2d_weight_grad, bounds.conv2d_weight_grad_bound, gy, x, ones[1], w.shape)):
        size = gradient(*magnitudes(p, q), shape, *geometry, out_dtype=None)
        count, eta = gradient(ones[0], one, shape, *geometry, out_dtype=None), Fraction(1, 2**149)
        assert_just_above(bound(p, q, shape, *geometry), count * Fraction(FLOAT32.unit) * (size + count * eta) + count * eta)


@pytest.mark.parametrize(("m", "profile"), [(2, WINOGRAD_F2_3), (4, WINOGRAD_F4_3), (6, WINOGRAD_F6_3)])
def test_winograd(m, profile):
    """theta*Y with Y = |A^T| (sum of (|G||g||G^T|)*(|B^T||d||B|)) |A| by the published algorithm over Fractions; D is below the slack here."""
    rng = np.random.default_rng(m)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 3, m + 3, m + 2), (2, 3, 3, 3)))
    tables = [np.abs(matrix) for matrix in transforms(m)]
    y = winograd(*magnitudes(x, w), m, tables=tables, dtype=object)
    theta = compound(3 + 4 * (m + 2) + 12, profile.unit)
    assert_just_above(bounds.conv2d_bound(x, w, profile=profile), theta * y)
    between = x + np.spacing(x).astype(np.float64) / 2  # no float32 numbers: u*|x| away from one, at most
    y = winograd(*magnitudes(between, w), m, tables=tables, dtype=object)
    moved = exact.conv2d(*magnitudes(between, w), out_dtype=None) * Fraction(1, 2**24)
    assert_just_above(bounds.conv2d_bound(between, w, profile=profile), theta * y + moved, COARSE)


@pytest.mark.parametrize(("m", "profile"), [(2, WINOGRAD_F2_3), (4, WINOGRAD_F4_3), (6, WINOGRAD_F6_3)])
def test_winograd_of_zeros(m, profile):
    """What underflow alone may do: 2C*eta in every product, through |A|, and 2a(1 + largest row sum) of it in that transform itself."""
    a, channels, eta = m + 2, 5, Fraction(1, 2**149)
    at = np.abs(transforms(m)[0])
    d = (at @ np.full((a, a), 2 * channels * eta) @ at.T) + 2 * a * (1 + at.sum(1).max()) * eta
    got = bounds.conv2d_bound(np.zeros((1, channels, a, a)), np.zeros((1, channels, 3, 3)), profile=profile)
    assert_just_above(got[0, 0], d * (1 + compound(channels + 4 * a + 12, profile.unit)), COARSE)


def test_fourier():
    """The formula of `fft_bound` to fifty digits, for 2 channels of 5 x 9, padded by 1, and kernels of 3 x 2: transforms of 16 x 16."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 2, 5, 9)).astype(np.float32), rng.standard_normal((1, 2, 3, 2)).astype(np.float32)
    bound = bounds.conv2d_bound(x, w, padding=1, profile=FFT_FLOAT32)
    assert (bound == bound[0, 0, 0, 0]).all()
    with mpmath.workdps(50):
        u, stages, points = mpmath.mpf(2) ** -24, 8 + 2, 256
        h = 2 * u + 4 * u / (1 - 4 * u) * (mpmath.sqrt(2) + 2 * u)
        e = stages * h / (1 - stages * h)
        r = (1 + mpmath.sqrt(2) * 2 * u / (1 - 2 * u)) / (1 - u) ** 2 - 1
        of_x, of_w = ([mpmath.sqrt(sum(mpmath.mpf(float(k)) ** 2 for k in c.ravel())) for c in v[0]] for v in (x, w))
        first = sum(a * b for a, b in zip(of_x, of_w, strict=True)) * ((1 + e) ** 2 * (1 + r) - 1)
        sums = [sum(abs(mpmath.mpf(float(k))) for k in c.ravel()) for c in w[0]]
        second = e * (1 + e) * (1 + r) * sum(a * (s + e * mpmath.sqrt(points) * b) for a, s, b in zip(of_x, sums, of_w, strict=True))
        assert first + second <= mpmath.mpf(float(bound[0, 0, 0, 0])) <= (first + second) * (1 + mpmath.mpf(2) ** -30)


@given(shapes, st.sampled_from([FLOAT32, FLOAT64]))
def test_sums_and_means(shape, profile):
    seed, channels, n = shape
    x = np.random.default_rng(seed).standard_normal((n, channels)).astype(profile.output)
    size, u, tiny = magnitudes(x)[0].sum(0), Fraction(profile.unit), (2 * n + 2) * Fraction(profile.tiny)
    assert_just_above(bounds.sum_bound(x, 0, profile=profile), (n - 1) * u * size)
    of_mean = plus(n * u, compound(2, u)) * (size / n + tiny) + tiny
    assert_just_above(bounds.mean_bound(x, 0, profile=profile), of_mean)


@given(shapes, st.sampled_from([FLOAT32, FLOAT64]), st.integers(0, 12))
def test_variances(shape, profile, power):
    """Without underflow, which is below the slack here."""
    seed, channels, n = shape
    x = (np.random.default_rng(seed).standard_normal((n, channels)) + 2.0**power - 1).astype(profile.output)
    f, u = exact.as_fractions(x, "x"), Fraction(profile.unit)
    mean, size = f.sum(0) / n, np.abs(f).sum(0) / n
    var, squares = ((f - mean) ** 2).sum(0) / n, (f**2).sum(0) / n
    e = plus(n * u, compound(2, u)) * size
    two_pass = plus(n * u, compound(5, u)) * (var + e**2) + e**2
    m, last = np.abs(mean), compound(3, u)
    one_pass = (plus(n * u, compound(2, u)) * squares + 2 * m * e + e**2 + last * (m + e) ** 2) * (1 + last) + last * var
    for name, formula in (("two_pass", two_pass), ("one_pass", one_pass)):
        of_mean, of_var = bounds.moments_bounds(x, name, profile)
        assert_just_above(of_mean, e)
        if profile is FLOAT32:
            assert_just_above(of_var, formula)
        else:  # the float64 mean is off by as much as the bound is about
            assert all(want <= Fraction(got) for got, want in zip(of_var.tolist(), formula, strict=True))


@given(shapes, st.sampled_from([FLOAT32, FLOAT64]))
def test_batch_norm(shape, profile):
    """Given statistics; the root between two rationals of 300 bits."""
    seed, channels, n = shape
    rng, u = np.random.default_rng(seed), Fraction(profile.unit)
    x, gamma, beta, mean, var = (rng.standard_normal(s).astype(profile.output) for s in ((n, channels), *[channels] * 4))
    var = np.abs(var)
    f, g, b, m = magnitudes(x, gamma, beta, mean)
    root = np.array([2 / sum(sqrt_between(v + Fraction(1e-5), 300)) for v in exact.as_fractions(var, "var")], object)
    formula = compound(AFFINE, u) * (g * root * (f + m) + b)
    assert_just_above(bounds.batch_norm_eval_bound(x, gamma, beta, mean, var, profile=profile), formula)


@given(shapes)
def test_training(shape):
    """What wrong statistics do, by the bounds of the moments: |gamma|*(|x - mean|*(r - s) + E*r) and evaluation's roundings with them."""
    seed, channels, n = shape
    rng = np.random.default_rng(seed)
    x, gamma, beta = (rng.standard_normal(s).astype(np.float32) for s in ((n, channels), channels, channels))
    e, v = (np.array([Fraction(float(value)) for value in bound], object) for bound in bounds.moments_bounds(x))
    f = exact.as_fractions(x, "x")
    mean = f.sum(0) / n
    spread = ((f - mean) ** 2).sum(0) / n + Fraction(0.5)
    s, r = (np.array([2 / sum(sqrt_between(value, 300)) for value in values], object) for values in (spread, spread - v))
    g, b = magnitudes(gamma, beta)
    moved = g * (np.abs(f - mean) * (r - s) + e * r)
    rounded = compound(AFFINE, FLOAT32.unit) * (g * r * (np.abs(f) + np.abs(mean) + e) + b)
    assert_just_above(bounds.batch_norm_train_bound(x, gamma, beta, 0.5), moved + rounded, COARSE)


@pytest.mark.parametrize("profile", [FLOAT32, TF32, BFLOAT16_FLOAT32], ids=["FLOAT32", "TF32", "BFLOAT16_FLOAT32"])
def test_fusion(profile):
    """The product of the formats' factors times S, two branches of 9 + 1 taps in one channel; k by hand."""
    rng = np.random.default_rng(0)
    x, w3, w1 = (np.abs(rng.standard_normal(s)).astype(np.float16).astype(np.float64) for s in ((1, 1, 4, 4), (1, 1, 3, 3), (1, 1, 1, 1)))
    bn = (np.full(1, 3.0), np.full(1, 0.5), np.full(1, 0.25), np.full(1, 3.0), 1.0)  # scale 3/2
    size = sum(Fraction(3, 2) * (exact.conv2d(*magnitudes(x, w), padding=p, out_dtype=None) + Fraction(1, 4)) + Fraction(1, 2)
               for w, p in ((w3, 1), (w1, 0)))
    u, u_tf32, u_bf16 = (Fraction(1, 2**p) for p in (24, 11, 8))
    factor = {FLOAT32: (1 - u) ** -24, TF32: (1 - 2 * u) ** -34 * (1 - u_tf32) ** -2,
              BFLOAT16_FLOAT32: (1 - u) ** -24 * (1 - u_bf16) ** -5 * (1 - u_bf16) ** -2}[profile]
    got = bounds.branches_bound(x, [(w3, None, bn, 1), (w1, None, bn, 0)], profile=profile)
    assert_just_above(got, (factor - 1) * size)


def test_a_bound_that_errs_downwards_is_caught():
    with pytest.raises(AssertionError, match="of the formula"):
        assert_just_above(np.array([np.nextafter(0.75, 0)]), [Fraction(3, 4)])
    with pytest.raises(AssertionError, match="of the formula"):
        assert_just_above(np.array([0.75 * (1 + 2.0**-34)]), [Fraction(3, 4)])
    assert_just_above(np.array([0.75]), [Fraction(3, 4)])
