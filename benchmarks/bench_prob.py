"""Pathwise gradients of every distribution: python benchmarks/bench_prob.py [name ...]

For each distribution: the largest relative error of dz/dtheta against mpmath (50 digits) over a grid of parameters and noise; PyTorch's at the
same points where it exposes them (its gamma and Dirichlet gradients); the largest deviation of the mean gradient of 10^6 samples from the
derivative of the mean, in standard errors (below 6.7 but for a chance of 1e-9 in all); and samples per second with their gradients, beside
PyTorch's in the same run.
The grids are PARAMETERS x PROBABILITIES below; mpmath differentiates the smaller tail of the cdf, or the quantile where it is a formula.
"""

import itertools
import sys
from pathlib import Path

import mpmath
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import measure
from npreparam import ops
from npreparam.ops.incomplete_beta import beta_slope_a, betaincinv
from npreparam.ops.incomplete_gamma import gamma_slope, gammaincinv
from npreparam.ops.student_t import t_icdf, t_slope
from npreparam.ops.von_mises import von_mises_icdf, von_mises_slope
from npreparam.tape import Tensor, grad
from tests.ops.test_implicit import beta_truth, gamma_truth, t_truth, von_mises_truth
from tests.prob.cases import CONTINUOUS, MOMENTLESS, OTHERS

PROBABILITIES = np.array([1e-12, 1e-8, 1e-4, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1 - 1e-4, 1 - 1e-9])
SHAPES = [1e-3, 1e-2, 0.1, 0.5, 1.0, 2.0, 5.0, 12.0, 29.0, 31.0, 100.0, 1e3, 1e4]
IMPLICIT = {  # slope, quantile, truth, parameters
    "Gamma": (gamma_slope, gammaincinv, gamma_truth, [[*SHAPES, 1e5]]),
    "Beta": (beta_slope_a, betaincinv, beta_truth, [SHAPES, SHAPES[::3]]),
    "StudentT": (t_slope, t_icdf, t_truth, [[0.02, *SHAPES[2:], 1e6]]),
    "VonMises": (von_mises_slope, von_mises_icdf, von_mises_truth, [[1e-3, 0.1, 1.0, 5.0, 30.0]]),
}
LN = mpmath.log
FORMULAS = {  # quantile as a function of the parameters and the noise, in mpmath
    "Normal": lambda e, m, s: m + s * e,
    "LogNormal": lambda e, m, s: mpmath.exp(m + s * e),
    "HalfNormal": lambda e, s: s * abs(e),
    "Laplace": lambda e, m, s: m + s * (LN(2 * e) if e < 0.5 else -LN(2 * (1 - e))),
    "Logistic": lambda e, m, s: m + s * LN(e / (1 - e)),
    "Cauchy": lambda e, m, s: m - s * mpmath.cot(mpmath.pi * e),
    "Gumbel": lambda e, m, s: m - s * LN(-LN(e)),
    "Exponential": lambda e, r: -mpmath.log1p(-e) / r,
    "Uniform": lambda e, a, b: a + (b - a) * e,
    "Kumaraswamy": lambda e, a, b: (-mpmath.expm1(mpmath.log1p(-e) / b)) ** (1 / a),
    "Weibull": lambda e, s, k: s * (-mpmath.log1p(-e)) ** (1 / k),
    "ContinuousBernoulli": lambda e, p: mpmath.log1p(e * (p / (1 - p) - 1)) / LN(p / (1 - p)),
}


def relative(ours, truth):
    """The largest relative error."""
    return max(float(abs(mpmath.mpf(float(a)) - b) / abs(b)) for a, b in zip(ours, truth, strict=True) if b != 0)


def converged(truth, point):
    """The truth at a point, or None where mpmath gives up."""
    try:
        return truth(*point)
    except (ValueError, mpmath.libmp.NoConvergence):
        return None


def implicit_errors(name):
    """Ours and PyTorch's (NaN where it exposes none) over the grid."""
    slope, icdf, truth, axes = IMPLICIT[name]
    points = np.array([(*p, u) for p in itertools.product(*axes) for u in PROBABILITIES]).T
    z = icdf(*points)
    low = 0.0 if name in ("Gamma", "Beta") else -np.inf
    keep = (np.abs(z) > 1e-290) & (np.abs(z) < 1e150) & (z > low) & ((z < 1) if name == "Beta" else True) & (points[-1] != 0.5)
    if name == "VonMises":
        keep &= (points[-1] > 1e-3) & (points[-1] < 0.9999)  # its witness, a Fourier series, cancels farther out
    points = [*points[:-1, keep], z[keep]]
    with mpmath.workdps(50):
        exact = [converged(truth, p) for p in zip(*points, strict=True)]
        if None in exact:
            print(f"{name}: at {exact.count(None)} of {len(exact)} points mpmath's series does not converge; they are left out")
            points = [v[[e is not None for e in exact]] for v in points]
            exact = [e for e in exact if e is not None]
        return relative(slope(*points), exact), relative(torch_slope(name, points), exact) if name in ("Gamma", "Beta") else np.nan


def torch_slope(name, points):
    """PyTorch's dz/da for the gamma and beta distributions."""
    import torch
    a, *b, z = (torch.from_numpy(np.ascontiguousarray(v)) for v in points)
    if name == "Gamma":
        return torch._standard_gamma_grad(a, z).numpy()
    return (torch._dirichlet_grad(z, a, a + b[0]) * (1 - z)).numpy()


def formula_error(name):
    """Largest relative error of dz/dtheta over twenty draws of noise, for the parameters of the tests."""
    make, parameters = CONTINUOUS[name]
    tensors = [Tensor(np.full(20, p)) for p in parameters]
    p = make(*tensors)
    eps = p.noise((), 0)
    with mpmath.workdps(50):
        values = [mpmath.mpf(float(p)) for p in parameters]
        exact = []
        for i, e in itertools.product(range(len(values)), eps):
            def quantile(t, i=i, e=e):
                return FORMULAS[name](mpmath.mpf(float(e)), *values[:i], t, *values[i + 1:])
            exact.append(mpmath.diff(quantile, values[i], h=mpmath.mpf(10)**-15))
        return relative(np.concatenate(grad(ops.sum(p.rsample(eps=eps)), tensors)), exact)


def deviation(name, batches=100, size=10_000):
    """Mean pathwise gradient of 10^6 samples against the derivative of the mean, in standard errors; NaN where the mean has no closed form."""
    if name in MOMENTLESS:
        return np.nan
    make, parameters = (CONTINUOUS | OTHERS)[name]
    tensors = [Tensor(p) for p in parameters]
    p, rng = make(*tensors), np.random.default_rng(0)
    weight = np.arange(1.0, 1 + max(1, int(np.prod(p.event_shape)))).reshape(p.event_shape)
    rows = [grad(ops.sum(ops.mul(ops.mean(p.rsample((size,), rng=rng), axis=0), weight)), tensors, allow_unused=True) for _ in range(batches)]
    exact = grad(ops.sum(ops.mul(p.mean, weight)), tensors, allow_unused=True)
    worst = 0.0
    for column, truth in zip(zip(*rows, strict=True), exact, strict=True):
        column = np.stack(column)
        error = column.std(0, ddof=1) / np.sqrt(batches)
        varies = error > 2.0**-40 * np.abs(column).max(0)
        worst = max(worst, float(np.max(np.abs(column.mean(0) - truth)[varies] / error[varies], initial=0.0)))
    return worst


def speed(name, count=100_000):
    """Million samples with gradients per second, ours and PyTorch's."""
    import torch
    make, parameters = (CONTINUOUS | OTHERS)[name]
    rng = np.random.default_rng(0)

    def ours():
        tensors = [Tensor(p) for p in parameters]
        grad(ops.sum(make(*tensors).rsample((count,), rng=rng)), tensors, allow_unused=True)

    kind = getattr(torch.distributions, name, None)
    if kind is None or not kind.has_rsample or name.startswith(("Multi", "Low", "Relaxed")):
        ours()
        return count / min(measure.once(ours) for _ in range(3)) / 1e6, np.nan

    def theirs():
        tensors = [torch.from_numpy(np.array(p)).requires_grad_() for p in parameters]
        kind(*tensors, validate_args=True).rsample((count,)).sum().backward()

    return tuple(count / seconds / 1e6 for seconds in measure.duel(ours, theirs))


def main():
    measure.clean_environment()
    for name, value in measure.machine().items():
        print(f"{name}: {value}")
    print(f"{'distribution':>26} {'rel. error':>11} {'PyTorch':>9} {'deviation':>10} {'M/s':>8} {'PyTorch':>8}")
    for name in [*CONTINUOUS, *OTHERS]:
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        error, theirs = np.nan, np.nan
        if name in IMPLICIT:
            error, theirs = implicit_errors(name)
        elif name in FORMULAS:
            error = formula_error(name)
        ours, torch_speed = speed(name)
        print(f"{name:>26} {error:11.1e} {theirs:9.1e} {deviation(name):10.2f} {ours:8.2f} {torch_speed:8.2f}", flush=True)


if __name__ == "__main__":
    main()
