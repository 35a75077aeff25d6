"""Implicit gradients, cdfs and quantiles of the gamma, beta, Student t and von Mises distributions against mpmath.

The witness is -(dF/dtheta)/f, the derivative by central differences in 50 digits of mpmath's own incomplete functions (of the smaller tail).
"""

import mpmath
import numpy as np
import pytest

from npreparam import ArgumentError, UnusedInputError, ops
from npreparam.ops.dirichlet import standard_dirichlet_rsample
from npreparam.ops.incomplete_beta import beta_slope_a, beta_slope_b, betainc, betaincinv, standard_beta_rsample
from npreparam.ops.incomplete_gamma import gamma_slope, gammainc, gammaincinv, standard_gamma_rsample
from npreparam.ops.student_t import standard_t_rsample, t_cdf, t_icdf, t_slope
from npreparam.ops.von_mises import von_mises_cdf, von_mises_icdf, von_mises_rsample, von_mises_slope
from npreparam.tape import Tensor, grad
from tests.tolerances import assert_within, function_bound
from tests.truth import assert_ulps

ULPS = 128  # the documented accuracy, 3e-14: sums of positive terms, each with the error of exp at an argument up to 40
PROBABILITIES = np.array([1e-12, 1e-4, 0.1, 0.5, 0.9, 1 - 1e-9])


def derivative(tail, parameter):
    return mpmath.diff(tail, parameter, h=mpmath.mpf(10) ** -15 * parameter)


def gamma_truth(a, z):
    a, z = mpmath.mpf(float(a)), mpmath.mpf(float(z))
    density = mpmath.exp((a - 1) * mpmath.log(z) - z - mpmath.loggamma(a))
    if z < a:
        return -derivative(lambda t: mpmath.gammainc(t, 0, z) / mpmath.gamma(t), a) / density
    return derivative(lambda t: mpmath.gammainc(t, z, mpmath.inf) / mpmath.gamma(t), a) / density


def beta_truth(a, b, z):
    a, b, z = map(mpmath.mpf, (a, b, z))
    density = mpmath.exp((a - 1) * mpmath.log(z) + (b - 1) * mpmath.log(1 - z)) / mpmath.beta(a, b)
    if z < a / (a + b):
        return -derivative(lambda t: mpmath.betainc(t, b, 0, z, regularized=True), a) / density
    return derivative(lambda t: mpmath.betainc(b, t, 0, 1 - z, regularized=True), a) / density


def t_truth(n, z):
    n, z = mpmath.mpf(float(n)), mpmath.mpf(float(z))
    density = (1 + z * z / n) ** (-(n + 1) / 2) / mpmath.sqrt(n) / mpmath.beta(n / 2, mpmath.mpf(0.5))
    return mpmath.sign(z) * derivative(lambda m: mpmath.betainc(m / 2, mpmath.mpf(0.5), 0, m / (m + z * z), regularized=True), n) / 2 / density


def von_mises_truth(k, z):
    """By the Fourier series of the cdf: F = 1/2 + (z/2 + sum of I_j/I_0*sin(j*z)/j)/pi."""
    k, z = mpmath.mpf(float(k)), mpmath.mpf(float(z))
    terms = int(30 + 12 * mpmath.sqrt(k))

    def cdf(c):
        start = mpmath.besseli(0, c)
        return (z / 2 + mpmath.fsum(mpmath.besseli(j, c) / start * mpmath.sin(j * z) / j for j in range(1, terms))) / mpmath.pi
    return -derivative(cdf, k) / (mpmath.exp(k * mpmath.cos(z)) / (2 * mpmath.pi * mpmath.besseli(0, k)))


def agree(actual, truth, *points):
    with mpmath.workdps(50):
        assert_ulps(actual, np.array([truth(*point) for point in zip(*points, strict=True)], object), ULPS)


@pytest.mark.parametrize("a", [1e-3, 0.1, 1.0, 7.9, 29.0, 31.0, 300.0, 1e5])
def test_gamma_slope(a):
    z = gammaincinv(np.array([a]), PROBABILITIES)
    z = z[z > 1e-300]
    agree(gamma_slope(np.array([a]), z), gamma_truth, np.full_like(z, a), z)


@pytest.mark.parametrize("b", [1e-3, 0.3, 8.0, 1e3])
@pytest.mark.parametrize("a", [1e-3, 1.0, 12.0, 1e4])
def test_beta_slopes(a, b):
    """dz/db by the mirrored truth; 1 - z must be a float for the mirrored call to see the same point, so z is rounded to 2^-53."""
    z = betaincinv(np.array([a]), np.array([b]), PROBABILITIES)
    z = z[(z > 1e-290) & (z < 1)]
    agree(beta_slope_a(np.array([a]), np.array([b]), z), beta_truth, np.full_like(z, a), np.full_like(z, b), z)
    z = np.round(z * 2.0**53) * 2.0**-53
    z = z[(z > 0) & (z < 1)]
    agree(beta_slope_b(np.array([a]), np.array([b]), z), lambda a, b, z: -beta_truth(b, a, 1 - z), np.full_like(z, a), np.full_like(z, b), z)


@pytest.mark.parametrize("n", [0.05, 0.5, 3.0, 23.9, 24.1, 1e4])
def test_t_slope(n):
    z = t_icdf(np.array([n]), PROBABILITIES[np.abs(PROBABILITIES - 0.5) > 0.01])
    z = z[np.abs(z) < 1e150]
    agree(t_slope(np.array([n]), z), t_truth, np.full_like(z, n), z)


@pytest.mark.parametrize("k", [1e-3, 0.5, 4.0, 30.0])
def test_von_mises_slope(k):
    z = von_mises_icdf(np.array([k]), np.array([0.02, 0.3, 0.5001, 0.8, 0.999]))
    agree(von_mises_slope(np.array([k]), z), von_mises_truth, np.full_like(z, k), z)


def test_an_error_of_a_part_in_ten_to_the_twelve_is_seen():
    a, z = np.array([2.0]), np.array([1.5])
    with pytest.raises(AssertionError, match="permitted error"):
        agree(gamma_slope(a, z) * (1 + 1e-12), gamma_truth, a, z)


@pytest.mark.parametrize("slope", [lambda a, z: -gamma_slope(a, z), lambda a, z: gamma_slope(a, z) * z, lambda a, z: z / a])
def test_planted_mistakes_are_seen(slope):
    """A wrong sign, the derivative of log z, and the derivative that a scaled sample would have."""
    a, z = np.array([2.0]), np.array([1.5])
    with pytest.raises(AssertionError):
        agree(slope(a, z), gamma_truth, a, z)


ROUND_TRIPS = {
    "gamma": (gammainc, gammaincinv, ([1e-1, 1.0, 40.0, 1e4],)),
    "beta": (betainc, betaincinv, ([0.5, 2.0, 30.0, 1e3], [0.7, 4.0, 20.0, 1e4])),
    "t": (t_cdf, t_icdf, ([0.5, 3.0, 30.0, 1e5],)),
    "von_mises": (von_mises_cdf, von_mises_icdf, ([0.01, 2.0, 50.0, 1e4],)),
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_cdf_of_quantile(name):
    """The quantile z is a rounded number: 1 + |log z| times some ulps of it move the probability by as many ulps of f(z)*|z|.

    Newton's method ends within an ulp of log z; f is the gradient of the cdf.
    """
    cdf, icdf, parameters = ROUND_TRIPS[name]
    parameters = [np.array(p)[:, None] for p in parameters]
    u = np.array([1e-10, 1e-3, 0.2, 0.5, 0.6, 0.99, 1 - 1e-6])
    z = Tensor(icdf(*parameters, u))
    back = cdf(*parameters, z)
    density = grad(ops.sum(back), z)
    expected = np.broadcast_to(u, back.shape)
    size = np.maximum(np.abs(z.value), np.finfo(float).tiny)
    moved = function_bound(8 * (1 + np.abs(np.log(size))), density * size, np.float64)
    assert_within(back.value, expected, function_bound(ULPS, expected, np.float64) + moved)


SAMPLES = {
    "gamma": (standard_gamma_rsample, gammaincinv, [np.array([0.7, 3.0, 50.0])]),
    "beta": (standard_beta_rsample, betaincinv, [np.array([0.7, 3.0, 50.0]), np.array([2.0, 0.4, 20.0])]),
    "t": (standard_t_rsample, t_icdf, [np.array([0.7, 3.0, 50.0])]),
    "von_mises": (von_mises_rsample, von_mises_icdf, [np.array([0.7, 3.0, 50.0])]),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_the_noise_and_moves_like_the_quantile(name):
    """The quantile's own gradients are checked by differences; the sample at eps = quantile(u) must have the same, with ==, also twice."""
    rsample, icdf, parameters = SAMPLES[name]
    u = np.array([0.1, 0.6, 0.9])

    def both(function, noise):
        tensors = [Tensor(p) for p in parameters]
        z = function(*tensors, noise)
        first = grad(ops.sum(ops.square(z)), tensors, create_graph=True)
        return z.value, [g.value for g in first] + grad(ops.sum(ops.concat(list(first))), tensors)

    value, quantile = icdf(*parameters, u), both(icdf, u)
    sample = both(rsample, value)
    assert (sample[0] == value).all()
    for a, b in zip(sample[1], quantile[1], strict=True):
        assert (a == b).all()


def test_dirichlet_gradient_for_two_elements_is_that_of_the_beta():
    a, z = np.array([0.7, 2.5]), np.array([0.2, 0.8])
    concentration = Tensor(a)
    g = grad(ops.sum(ops.mul(standard_dirichlet_rsample(concentration, z), np.array([1.0, 0.0]))), concentration)
    assert_ulps(g[:1], np.array([beta_truth(a[0], a[1], z[0])], object), ULPS)
    assert_ulps(g[1:], np.array([-beta_truth(a[1], a[0], z[1])], object), ULPS)


def test_dirichlet_gradients_keep_the_sum():
    a, z = Tensor(np.array([0.7, 2.5, 1.0])), np.array([0.2, 0.5, 0.3])
    moved = grad(ops.sum(standard_dirichlet_rsample(a, z)), a)
    assert_within(moved, np.zeros(3), function_bound(8, np.ones(3), np.float64))


def test_float32_is_computed_in_float64_and_rounded_once():
    a, z = np.array([2.0, 40.0], np.float32), np.array([1.5, 44.0], np.float32)
    assert (gamma_slope(a, z) == gamma_slope(a.astype(np.float64), z.astype(np.float64)).astype(np.float32)).all()


def test_underflowed_samples_have_a_zero_gradient():
    assert gamma_slope(np.array([1e-3]), np.zeros(1)) == 0
    assert (beta_slope_a(np.ones(2), np.ones(2), np.array([0.0, 1.0])) == 0).all()


HOSTILE = np.array([-1e300, -1.0, 0.0, 5e-324, 1e-300, 0.5, 1.0, 1e12, 1e300, np.inf, np.nan])


@pytest.mark.parametrize("function", [gammainc, gammaincinv, gamma_slope, t_cdf, t_icdf, t_slope, von_mises_cdf, von_mises_icdf, von_mises_slope])
def test_hostile_values_end_in_numbers_or_nan(function):
    """No parameter hangs a kernel, and what has no meaning is NaN."""
    parameter, value = (v.ravel() for v in np.meshgrid(HOSTILE, HOSTILE))
    result = function(parameter, value)
    assert np.isnan(result[(parameter < 0) & (value == 0.5)]).all()
    assert np.isnan(result[np.isnan(value)]).all()


@pytest.mark.parametrize("function", [betainc, betaincinv, beta_slope_a, beta_slope_b])
def test_hostile_beta_parameters(function):
    a, b = (v.ravel() for v in np.meshgrid(HOSTILE, HOSTILE))
    for value in (-1.0, 0.0, 1e-300, 0.5, 1.0, np.nan):
        result = function(a, b, np.full_like(a, value))
        if value == 0.5:
            assert np.isnan(result[(a < 0) | (b < 0)]).all()


def test_noise_without_a_tensor_is_no_sample():
    with pytest.raises(UnusedInputError):
        grad(ops.sum(standard_gamma_rsample(np.array([2.0]), np.array([1.0]))), Tensor(np.array([2.0])))


def test_the_same_noise_in_pytorch():
    """PyTorch documents 5e-4 for its gamma gradient and 1e-3 for its Dirichlet gradient; ours lies within that of theirs."""
    torch = pytest.importorskip("torch")
    a, z = np.array([0.05, 0.7, 3.0, 50.0]), np.array([0.02, 0.5, 2.0, 55.0])
    theirs = torch._standard_gamma_grad(torch.from_numpy(a), torch.from_numpy(z)).numpy()
    assert_within(gamma_slope(a, z), theirs, 5e-4 * np.abs(theirs))
    total = np.array([3.0, 4.0])
    x, one = np.array([0.3, 0.6]), np.array([1.0, 2.0])
    theirs = torch._dirichlet_grad(*(torch.from_numpy(v) for v in (x, one, total))).numpy()
    assert_within(beta_slope_a(one, total - one, x) / (1 - x), theirs, 1e-3 * np.abs(theirs))


def dirichlet_slopes(a, z):
    """dz_j/da_i as row j, column i, in mpmath's numbers."""
    slopes = [beta_truth(a[i], sum(a) - a[i], z[i]) for i in range(len(a))]
    return [[s * (1 if i == j else -z[j] / (1 - z[i])) for i, s in enumerate(slopes)] for j in range(len(a))]


def test_second_derivatives_of_a_dirichlet_sample_follow_it_along_its_slopes():
    """d/da_k of the gradient of f(z) = sum of c*z^2 is its derivative where a moves along axis k and z along dz/da_k.

    The witness differentiates -(dF/da)/f in 60 digits. Each result sums products of at most three factors: slopes, their derivatives, and
    numbers of at most 2*c/(1 - z)^2; ULPS is the accuracy of each slope and of its derivatives relative to their size beside 1.
    """
    a, z, c = np.array([0.7, 2.0, 3.5]), np.array([0.2, 0.3, 0.5]), np.array([1.0, -2.0, 0.5])
    tensor = Tensor(a)
    slope = grad(ops.sum(ops.mul(ops.square(standard_dirichlet_rsample(tensor, z)), c)), tensor, create_graph=True)
    second = np.array([grad(slope, tensor, e) for e in np.eye(3)])
    with mpmath.workdps(60):
        here, rates = [mpmath.mpf(v) for v in a], dirichlet_slopes(a, z)

        def gradient_at(k, step):
            moved = [v + step * (i == k) for i, v in enumerate(here)]
            there = [mpmath.mpf(v) + step * rates[j][k] for j, v in enumerate(z)]
            return [sum(2 * c[j] * there[j] * row[i] for j, row in enumerate(dirichlet_slopes(moved, there))) for i in range(3)]

        step = mpmath.mpf(10) ** -12  # its square is far below u, and 60 digits are far below its product with u
        both = [(gradient_at(k, step), gradient_at(k, -step)) for k in range(3)]
        truth = np.array([[float((up[i] - down[i]) / (2 * step)) for up, down in both] for i in range(3)])
    size = 9 * (2 * np.abs(c).max() / (1 - z).min() ** 2) * (1 + np.abs(np.array(rates, float)).max()) ** 2
    assert_within(second, truth, function_bound(ULPS, size, np.float64))
    assert np.abs(second - second.T).max() > function_bound(ULPS, size, np.float64)  # the fields do not commute


THRICE = {
    "Beta": (lambda t: standard_beta_rsample(t, np.array(2.0), np.array(0.4)), r"d\(dz/da\)/da and d\(dz/da\)/db of a Beta sample z"),
    "Beta, b": (lambda t: standard_beta_rsample(np.array(2.0), t, np.array(0.4)), r"d\(dz/db\)/da and d\(dz/db\)/db of a Beta sample z"),
    "Gamma": (lambda t: standard_gamma_rsample(t, np.array(0.4)), r"d\(dz/da\)/da of a Gamma sample z of concentration a"),
    "Dirichlet": (lambda t: ops.sum(ops.square(standard_dirichlet_rsample(ops.mul(t, np.ones(2)), np.array([0.4, 0.6])))), "of a Beta sample z"),
    "StudentT": (lambda t: standard_t_rsample(t, np.array(0.4)), r"d\(dz/dn\)/dn of a StudentT sample z of n degrees of freedom"),
    "VonMises": (lambda t: von_mises_rsample(t, np.array(0.4)), r"d\(dz/dk\)/dk of a VonMises sample z of concentration k"),
}


@pytest.mark.parametrize("name", THRICE)
def test_a_third_derivative_is_refused_by_name(name):
    f, missing = THRICE[name]
    t = Tensor(np.array(1.5))
    first = grad(f(t), t, create_graph=True)
    assert np.isfinite(grad(first, t))
    with pytest.raises(ArgumentError, match=f"the derivatives of .*{missing} are not implemented: .* twice .* with create_graph=False"):
        grad(first, t, create_graph=True)
