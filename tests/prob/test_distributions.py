"""What all distributions promise: densities, cdfs and quantiles, moments, noise and pathwise gradients that belong together."""

import numpy as np
import pytest

from npreparam import UnusedInputError, ops, prob
from npreparam.ops.xlogy import xlogy
from npreparam.tape import Tensor, check_grads, grad
from npreparam.tape.tensor import value_of
from tests.prob.cases import CONTINUOUS, DISCRETE, MOMENTLESS, OTHERS, dkw, sigmas
from tests.tolerances import assert_same_bits, assert_within, function_bound

SAMPLES = 50_000
EVERY = CONTINUOUS | OTHERS
MOMENTS = sorted(set(EVERY | DISCRETE) - MOMENTLESS)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)


def made(name):
    make, parameters = (EVERY | DISCRETE)[name]
    return make(*parameters)


def on_tape(name):
    make, parameters = (EVERY | DISCRETE)[name]
    tensors = [Tensor(p, f"parameter {i}") for i, p in enumerate(parameters)]
    return make(*tensors), tensors


def integral(density, low, high, panels):
    edges = np.linspace(low, high, panels + 1)
    x = edges[:-1, None] + (edges[1:] - edges[:-1])[:, None] * (NODES + 1) / 2
    return float((density(x) @ WEIGHTS / 2 * (edges[1:] - edges[:-1])).sum())


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_density_integrates_to_the_cdf(name):
    """Between quantiles; the error is bounded by the difference from half as many panels, that is by the observed convergence."""
    p = made(name)
    low, mid, high = np.sort(p.icdf(np.array([0.003, 0.5, 0.99])))
    for a, b in ((low, mid), (mid, high)):
        fine, coarse = (integral(lambda x: np.exp(p.log_prob(x)), a, b, panels) for panels in (64, 32))
        bound = abs(fine - coarse) + function_bound(256, 1.0, np.float64)
        assert bound < 2.0**-30, "the quadrature has not converged"
        assert_within(np.array(fine), np.array(p.cdf(b) - p.cdf(a)), bound)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_cdf_of_quantile_and_its_slope(name):
    """cdf(icdf(u)) = u to the rounding of the quantile, and d cdf/dx = exp(log_prob)."""
    p = made(name)
    u = np.array([1e-3, 0.2, 0.499, 0.5, 0.501, 0.8, 0.999])
    x = Tensor(p.icdf(u))
    back = p.cdf(x)
    density = grad(ops.sum(back), x)
    size = 1 + np.abs(x.value)
    assert_within(back.value, u, function_bound(64, u + density * size, np.float64))
    assert_within(density, np.exp(p.log_prob(x.value)), function_bound(256, density, np.float64))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_pathwise_gradients_are_those_of_the_quantile(name):
    """dz/dtheta = -(dF/dtheta)(z)/f(z), which is how a sample must move for its probability to stay, from the gradients of the cdf alone."""
    p, tensors = on_tape(name)
    eps = p.noise((5,), 1)
    z = p.rsample(eps=eps)
    frozen = Tensor(z.value)
    cdf = p.cdf(frozen)
    for i in range(5):
        pick = np.eye(5)[i]
        moves = grad(ops.sum(ops.mul(z, pick)), tensors, allow_unused=True)
        slopes = grad(ops.sum(ops.mul(cdf, pick)), tensors, allow_unused=True)
        density = np.exp(value_of(p.log_prob(z.value)))[i]
        for move, slope in zip(moves, slopes, strict=True):
            size = np.abs(slope) / density + 1 / density + np.abs(z.value[i])
            assert_within(move, -slope / density, function_bound(256, size, np.float64))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_samples_have_the_cdf(name):
    """The empirical cdf stays within the bound of Dvoretzky, Kiefer and Wolfowitz."""
    p = made(name)
    u = np.sort(p.cdf(p.sample((SAMPLES,), rng=2)))
    step = np.arange(SAMPLES + 1) / SAMPLES
    assert max(np.max(step[1:] - u), np.max(u - step[:-1])) <= dkw(SAMPLES)


@pytest.mark.parametrize("wrong", [lambda e: 0.9 * e, lambda e: 0 * e, lambda e: e + 0.05, lambda e: np.exp(0.5) * e])
def test_scaled_unused_or_shifted_noise_is_seen(wrong):
    p = prob.Normal(0.3, 1.4)
    u = np.sort(p.cdf(0.3 + 1.4 * wrong(p.noise((SAMPLES,), 2))))
    step = np.arange(SAMPLES + 1) / SAMPLES
    assert max(np.max(step[1:] - u), np.max(u - step[:-1])) > dkw(SAMPLES)


@pytest.mark.parametrize("name", MOMENTS)
def test_moments_of_samples(name):
    """Means of z and of (z - mean)^2 within `sigmas` standard errors, whose own variance is that of the samples."""
    p = made(name)
    z = p.sample((SAMPLES,), rng=3)
    for terms, expected in ((z, p.mean), ((z - p.mean) ** 2, p.variance)):
        assert_within(terms.mean(0), expected, sigmas() * terms.std(0) / np.sqrt(SAMPLES))


@pytest.mark.parametrize("name", sorted(set(EVERY) - MOMENTLESS))
def test_pathwise_gradients_have_the_expectation(name):
    """E[dz/dtheta] = dE[z]/dtheta, and the same of z^2, within `sigmas` standard errors, taken from 100 batches of the samples."""
    p, tensors = on_tape(name)
    rng = np.random.default_rng(4)
    batches = [p.rsample((200,), rng=rng) for _ in range(100)]
    weight = np.arange(1.0, 1 + batches[0].value[0].size).reshape(batches[0].value[0].shape)

    def gradient(terms):
        return grad(ops.sum(ops.mul(terms, weight)), tensors, allow_unused=True)

    for power, moment in ((lambda z: z, p.mean), (ops.square, ops.add(p.variance, ops.square(p.mean)))):
        gradients = zip(*(gradient(ops.mean(power(z), axis=0)) for z in batches), strict=True)
        for rows, exact in zip(map(np.stack, gradients), gradient(moment), strict=True):
            slack = function_bound(256, np.abs(rows).max(0) + np.abs(exact) + 1, np.float64)
            assert_within(rows.mean(0), exact, student(rows) + slack)


def student(rows):
    """Standard error times a factor for 99 degrees of freedom: t has heavier tails than the normal, P(|t| > 7.2) < 1.3e-10 for 99."""
    return 7.2 * rows.std(0, ddof=1) / np.sqrt(len(rows))


@pytest.mark.parametrize("name", sorted(set(EVERY | DISCRETE) - (MOMENTLESS - {"Cauchy", "VonMises"})))
def test_entropy_is_the_mean_of_minus_log_prob(name):
    p = made(name)
    terms = -p.log_prob(p.sample((SAMPLES,), rng=5))
    assert_within(terms.mean(0), p.entropy(), sigmas() * terms.std(0) / np.sqrt(SAMPLES) + function_bound(256, np.abs(terms).max(), np.float64))


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_scores_have_expectation_zero(name):
    """E[d log p/dtheta] = 0: log p is normalized, whatever the dimension."""
    p, tensors = on_tape(name)
    z = p.sample((100, 500), rng=6)
    batches = [grad(ops.mean(p.log_prob(z[i]), axis=0), tensors) for i in range(100)]
    for rows in map(np.stack, zip(*batches, strict=True)):
        assert_within(rows.mean(0), np.zeros(rows.shape[1:]), student(rows) + function_bound(256, np.abs(rows).max(0), np.float64))


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"Gamma", "Beta", "Dirichlet", "StudentT", "VonMises", "InverseGamma"}))
def test_samples_differentiate_twice(name):
    make, parameters = EVERY[name]
    eps = make(*parameters).noise((3,), 7)
    check_grads(lambda *ps: make(*ps).rsample(eps=eps), parameters)


@pytest.mark.parametrize("name", sorted(set(EVERY)))
def test_log_prob_differentiates_twice(name):
    make, parameters = EVERY[name]
    x = make(*parameters).sample((3,), rng=8)
    check_grads(lambda *ps: make(*ps).log_prob(x), parameters)


@pytest.mark.parametrize("name", sorted(EVERY | DISCRETE))
def test_the_same_noise_or_seed_gives_the_same_bits(name):
    p = made(name)
    eps = p.noise((4, 2), 9)
    assert eps.shape == p.noise_shape((4, 2))
    z = p.sample(eps=eps)
    assert z.shape == p.sample_shape((4, 2)) == (4, 2, *p.batch_shape, *p.event_shape)
    assert_same_bits(z, p.sample((4, 2), eps=eps))
    assert_same_bits(z, p.sample((4, 2), rng=9))
    assert p.log_prob(z).shape == (4, 2, *p.batch_shape)


@pytest.mark.parametrize("name", sorted(EVERY | DISCRETE))
def test_float32_stays_float32(name):
    make, parameters = (EVERY | DISCRETE)[name]
    p = make(*[v.astype(np.float32) for v in parameters])
    z = p.sample((50,), rng=10)
    assert z.dtype == p.log_prob(z).dtype == p.noise((2,), 1).dtype == np.float32
    assert np.isfinite(p.log_prob(z)).all()


@pytest.mark.parametrize("name", sorted(EVERY))
def test_a_plain_sample_trains_nothing_and_says_so(name):
    p, tensors = on_tape(name)
    z = p.sample((3,), rng=0)
    with pytest.raises(UnusedInputError, match="parameter 0"):
        grad(ops.sum(ops.square(Tensor(z))), tensors)


def test_zero_probability_counts_nothing():
    p = prob.Bernoulli(np.array([0.0, 1.0]))
    assert (p.log_prob(np.array([0.0, 1.0])) == 0).all()
    assert (p.log_prob(np.array([1.0, 0.0])) == -np.inf).all()
    assert (p.entropy() == 0).all()
    assert (p.sample((1000,), rng=0) == [0, 1]).all()
    q = prob.Categorical(np.array([0.0, 1.0, 0.0]))
    assert q.entropy() == 0
    assert (q.sample(eps=np.array([0.0, 0.5, 1.0])) == 1).all()
    assert (prob.Bernoulli(logits=np.array([-np.inf, 1e3])).log_prob(np.array([0.0, 1.0])) == 0).all()
    assert xlogy(np.zeros(1), np.zeros(1)) == 0


UNIFORM_NOISE = [name for name in EVERY if made(name).noise_law == "uniform on (0, 1)"]


@pytest.mark.parametrize("name", UNIFORM_NOISE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_noise_of_0_and_1_gives_finite_samples_and_gradients(name, dtype):
    make, parameters = EVERY[name]
    tensors = [Tensor(p.astype(dtype)) for p in parameters]
    p = make(*tensors)
    ends = np.stack([np.zeros(p.noise_shape(), dtype), np.ones(p.noise_shape(), dtype)])
    z = p.rsample(eps=ends)
    assert np.isfinite(z.value).all()
    assert all(np.isfinite(g).all() for g in grad(ops.sum(z), tensors, allow_unused=True))


def test_huge_log_variances_stay_finite_or_raise():
    for logvar in (1e3, -1e3):
        sigma = Tensor(np.exp(np.array(logvar) / 2))
        p = prob.Normal(Tensor(np.array(0.0)), sigma)
        z = p.rsample(eps=np.array(3.0))
        assert np.isfinite(z.value)
        assert np.isfinite(p.log_prob(z).value)
    with pytest.raises(ValueError, match=r"`scale` \(=inf\) must be finite and positive"):
        prob.Normal(0.0, np.inf)


def test_drawn_uniform_noise_lies_strictly_inside():
    for dtype in (np.float32, np.float64):
        u = prob.Gumbel(np.zeros(1, dtype), 1.0).noise((200_000,), 0)
        assert 0 < u.min() < u.max() < 1
