"""How near honest implementations come to their bounds: python benchmarks/bench_bounds.py [trials]

By default 10^6 dot products, in vectorised simulations of every profile and order, on data of every kind; then the transforms and the
variances. The exact value is a float64 or double-double sum, whose own error is added to the bound. A ratio above 1 would be a wrong theorem.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from npreparam import ops
from npreparam.certified import bounds
from npreparam.certified.bounds.profile import PROFILES
from tests.certified import data, simulate
from tests.certified.test_bounds_batch_norm import machine_moments
from tests.certified.transforms import fft_conv2d, winograd

DIRECT = {name: PROFILES[name] for name in ("FLOAT32", "TF32", "BFLOAT16_FLOAT32", "FLOAT16_FLOAT32", "FLOAT16_FLOAT16")}
DIRECT["FLUSHED"] = bounds.Profile(flush_to_zero=True)
LENGTHS = (4, 27, 100)


def two_sum(a, b):
    """Knuth's sum and its error."""
    s = a + b
    back = s - a
    return s, (a - (s - back)) + (b - back)


def reference(products):
    """Sums along axis 0 of float64 products of float32 operands (exact), in double-double; within n^2*2^-104 of the magnitudes."""
    high, low = np.zeros(products.shape[1:]), np.zeros(products.shape[1:])
    for p in products:
        high, error = two_sum(high, p)
        low = low + error
    return high + low


@simulate.quiet
def dot_ratio(kind, n, trials, profile, style, rng):
    """The largest error/bound of so many dot products."""
    name = "float32" if profile.input_rounding == "tf32" else profile.input_rounding
    x, w = data.operands(kind, (n, trials), rng, name)
    got = simulate.dot(x, w, profile, style, rng).astype(np.float64)
    limit = bounds.dot.sum_of_products_bound(lambda p, q: (p * q).sum(0), (x, w), n, n, profile)
    truth = reference(x * w)
    own = 2.0**-52 * np.abs(truth) + n**2 * 2.0**-100 * np.abs(x * w).sum(0)
    finite = np.isfinite(limit)
    return float(np.max(np.abs(got - truth)[finite] / (limit + own)[finite], initial=0))


def styles(profile):
    return ("sequential",) if profile.order == "tensor_core" else ("sequential", "shuffled", "pairwise", "blocked", "random_tree")


def dots(trials):
    """Rows of the largest ratio by profile and kind of data."""
    rng, cells = np.random.default_rng(0), len(DIRECT) * len(data.KINDS) * len(LENGTHS)
    rows = []
    for name, profile in DIRECT.items():
        row = {"profile": name}
        for kind in data.KINDS:
            each = max(1, trials // (cells * len(styles(profile))))
            row[kind] = max(dot_ratio(kind, n, each, profile, style, rng) for n in LENGTHS for style in styles(profile))
        rows.append(row)
    return rows


@simulate.quiet
def transforms(channels, images=200):
    """The largest error/bound of Winograd and Fourier transforms in float32, against the direct bound as well."""
    rng = np.random.default_rng(1)
    x, w = (rng.standard_normal(shape).astype(np.float32).astype(np.float64) for shape in ((images, channels, 12, 12), (4, channels, 3, 3)))
    truth, rows = ops.conv2d(x, w), []
    for name in ("WINOGRAD_F2_3", "WINOGRAD_F4_3", "WINOGRAD_F6_3", "FFT_FLOAT32"):
        profile = PROFILES[name]
        got = fft_conv2d(x, w) if profile.algorithm == "fft" else winograd(x, w, int(profile.algorithm[9]))
        error = np.abs(got - truth)
        rows.append({"profile": name, "channels": channels, "own bound": float((error / bounds.conv2d_bound(x, w, profile=profile)).max()),
                     "direct bound": float((error / bounds.conv2d_bound(x, w)).max())})
    return rows


def variances(channels=20_000):
    """The largest error/bound of both variances, and of the one-pass variance against the two-pass bound, by mean/deviation."""
    rng, rows = np.random.default_rng(2), []
    for ratio in (0, 10, 100, 1000):
        x = (rng.standard_normal((64, channels)) + ratio).astype(np.float32).astype(np.float64)
        shifted = x - ratio  # exact: the variance does not change
        truth = (shifted**2).mean(0) - shifted.mean(0) ** 2
        row = {"mean/deviation": ratio}
        for variance in ("two_pass", "one_pass"):
            error = np.abs(machine_moments(x, bounds.FLOAT32, variance, "pairwise", rng)[1] - truth)
            row[variance] = float((error / bounds.moments_bounds(x, variance)[1]).max())
        row["one_pass by two_pass"] = float((error / bounds.moments_bounds(x)[1]).max())
        rows.append(row)
    return rows


def table(title, rows):
    print(f"\n{title}\n" + "  ".join(f"{name:>16}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>16.4f}" if isinstance(value, float) else f"{value!s:>16}" for value in row.values()), flush=True)


def main():
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 10**6
    table(f"Largest error/bound of {trials} dot products of {LENGTHS} terms", dots(trials))
    table("Largest error/bound of transforms in float32, by their own bound and by that of a direct convolution", transforms(1) + transforms(8))
    table("Largest error/bound of variances of 64 values", variances())


if __name__ == "__main__":
    main()
