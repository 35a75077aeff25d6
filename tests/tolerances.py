"""The one home of error bounds in the tests; each states its formula. u is the unit roundoff, eta the smallest subnormal number."""

import numpy as np

UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}  # u = 2^-p
ETA = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149, "float64": 2.0**-1074}  # eta = 2^(e_min - p + 1)


def unit(dtype):
    return UNIT[np.dtype(dtype).name]


def eta(dtype):
    return ETA[np.dtype(dtype).name]


def sum_bound(terms, absolute_sum, dtype):
    """|fl(sum x) - sum x| <= (n - 1)*u*sum|x|, any order; additions do not underflow (Jeannerod and Rump, SIMAX 34(2), 2013)."""
    return (terms - 1) * unit(dtype) * np.asarray(absolute_sum, np.float64)


def dot_bound(terms, absolute_sum, dtype):
    """|fl(x.w) - x.w| <= n*u*sum|x||w| + n*eta, any order, FMA or not (Jeannerod and Rump, SIMAX 34(2), 2013; ASNA 2.4 for eta)."""
    return terms * unit(dtype) * np.asarray(absolute_sum, np.float64) + terms * eta(dtype)


def relative_bound(roundings, magnitude, dtype):
    """A value that passed k roundings of relative error u: |error| <= gamma_k*|value|, gamma_k = k*u/(1 - k*u) (Higham, ASNA lemma 3.1)."""
    k = roundings * unit(dtype)
    return k / (1 - k) * np.abs(np.asarray(magnitude, np.float64)) + roundings * eta(dtype)


def function_bound(ulps, value, dtype):
    """A function computed with an error of some ulps, 1 ulp <= 2*u*|value| (+ eta where subnormal)."""
    return ulps * (2 * unit(dtype) * np.abs(np.asarray(value, np.float64)) + eta(dtype))


def fusion_bound(terms, branches, absolute_sum, dtype):
    """Fused against multi-branch: both are roundings of one affine map y = sum_i s_i*(w_i.x) + beta_i - m_i*s_i over B branches.

    Multi-branch, for each term: n+1 roundings in the dot product, then x - mean, var + eps, its root, the quotient, *gamma, +beta: <= 7,
    and B in the sum of branches. Fused: s_i = gamma/sqrt(var + eps) at most 3, s_i*w_i or mean*s_i 1, beta - ... 1, B in the sum, 1 to the
    stored dtype, n+1 in the dot product and 1 for the bias. So each side is within gamma_k*S of the exact value, k = n + B + 8, with
    S = sum_i |s_i|(|w_i|.|x| + |m_i|) + |beta_i|, and both together within gamma_2k*S.
    """
    return relative_bound(2 * (terms + branches + 8), absolute_sum, dtype)


def tree_bound(roundings, magnitude, dtype):
    """A tree of linear layers against one convolution: both are roundings of one sum of products.

    `roundings` counts, on both sides together, those that a term passes at most; `magnitude` is the tree's value with every number replaced by
    its absolute value. |difference| <= gamma_k*magnitude.
    """
    return relative_bound(roundings, magnitude, dtype)


def moments_bounds(x):
    """Bounds on the error of float64 means and biased variances of NCHW channels, with n values in each.

    Mean: n additions and a division, |error| <= gamma_{n+2}*mean|x| (ASNA, section 4.2). Two-pass variance, with E the mean's error:
    |error| <= gamma_{n+4}*var + E^2 (Chan, Golub and LeVeque, The American Statistician 37(3), 1983; their correction removes most of E^2).
    """
    x = np.asarray(x, np.float64)
    over, n = (0, *range(2, x.ndim)), x.size // x.shape[1]
    of_mean = relative_bound(n + 2, np.abs(x).mean(over), np.float64)
    return of_mean, relative_bound(n + 4, x.var(over), np.float64) + of_mean**2


def batch_norm_magnitude(x, mean_of_abs, var, eps):
    """X = (|x| + mean|x|)/sqrt(var + eps): |xhat| without the cancellation in x - mean, so that X carries the mean's error too."""
    shape = (1, -1, *[1] * (x.ndim - 2))
    return (np.abs(x) + mean_of_abs.reshape(shape)) / np.sqrt(var + eps).reshape(shape)


def batch_norm_bound(x, gamma, beta, mean_of_abs, var, eps, dtype):
    """y = xhat*gamma + beta in float64, rounded once to dtype.

    n roundings in the mean, n/2 in 1/sqrt(var + eps), at most 16 beside: |error| <= gamma_{2n+16}*(|gamma|*X + |beta|) + the rounding of y.
    """
    shape, n = (1, -1, *[1] * (x.ndim - 2)), x.size // x.shape[1]
    size = np.abs(gamma).reshape(shape) * batch_norm_magnitude(x, mean_of_abs, var, eps) + np.abs(beta).reshape(shape)
    return relative_bound(2 * n + 16, size, np.float64) + (0 if np.dtype(dtype) == np.float64 else relative_bound(1, size, dtype))


def batch_norm_grad_bounds(gy, x, gamma, mean_of_abs, var, eps, dtype):
    """Bounds for (gx, ggamma, gbeta), each a sum in float64 of n terms, rounded once to dtype.

    In gx = gamma*s*(g - mean(g) - xhat*mean(g*xhat)), s = 1/sqrt(var + eps), a term passes at most 2(n+2) roundings through xhat twice,
    3(n/2+3) through s, n+2 through the sum: |error| <= gamma_{5n+32} * |gamma|*s*(|g| + mean|g| + X*mean(|g|*X)), plus the rounding of gx.
    """
    over, shape, n = (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2)), x.size // x.shape[1]
    size, g = batch_norm_magnitude(x, mean_of_abs, var, eps), np.abs(np.asarray(gy, np.float64))
    slope = (np.abs(gamma) / np.sqrt(var + eps)).reshape(shape)
    of_x = slope * (g + g.mean(over, keepdims=True) + size * (g * size).mean(over, keepdims=True))
    rounding = 0 if np.dtype(dtype) == np.float64 else 1
    return tuple(relative_bound(5 * n + 32, m, np.float64) + rounding * relative_bound(1, m, dtype)
                 for m in (of_x, (g * size).sum(over), g.sum(over)))


def assert_within(actual, expected, bound):
    """|actual - expected| <= bound everywhere, in float64; NaN must meet NaN, and infinities must be equal."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"shapes differ: {actual.shape} and {expected.shape}"
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    bound = np.broadcast_to(bound, actual.shape)
    special = ~(np.isfinite(actual) & np.isfinite(expected))
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    assert same[special].all(), "NaN or infinity in different places"
    error = np.where(special, 0.0, np.abs(np.where(special, 0.0, actual) - np.where(special, 0.0, expected)))
    bad = ~(error <= bound) & ~special
    if bad.any():
        worst = np.unravel_index(np.argmax(np.where(bad, error - bound, -np.inf)), error.shape)
        raise AssertionError(f"at {tuple(int(i) for i in worst)}: {actual[worst]!r} instead of {expected[worst]!r}; "
                             f"error = {error[worst]:.3g}; permitted error = {bound[worst]:.3g}")


def assert_same_bits(actual, expected):
    """The very same numbers: shape, dtype, and every bit."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    assert actual.tobytes() == expected.tobytes()
