"""Certified results: how many are wrong, and what they cost: python benchmarks/bench_certified.py [results.json] [--scale 1.0]

Counts the elements that differ from `exact` in any bit (NaN apart), over all ops and kinds of data, 10^7 in float32 and 10^6 in float64 with
scale 1; a planted error of one ulp must be counted. Then speed, side by side: certified float32 against PyTorch's uncertified float64 convolution,
certified float64 against the plain float64 kernel and against the loop over Fractions, certified batch norm against the plain one.
"""

import argparse
import multiprocessing
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import measure
from benchmarks.bench_conv2d import LAYERS, geometric_mean
from npreparam import certified, exact, ops

GEOMETRY = ((2, 1), ((1, 0), (1, 2)), (1, 2), 1)
FUNCTIONS = ("exp", "expm1", "log", "log1p", "sigmoid", "silu", "softplus", "tanh")
GOAL = {np.float32: 10**7, np.float64: 10**6}
BATCH = 40_000  # elements of one comparison, about


def random(rng, shape, sign=1):
    return rng.standard_normal(shape)


def ill_conditioned(rng, shape, sign=1):
    """Along axis 1: numbers, the same times `sign`, and a tiny one; with signs 1 and -1 a product of two is a sum that all but cancels."""
    x = rng.standard_normal(shape) * 2.0 ** rng.integers(-20, 21, shape)
    half = (shape[1] - 1) // 2
    x[:, half : 2 * half] = sign * x[:, :half]
    x[:, 2 * half :] *= 2.0**-30
    return x


def lattice(rng, shape, sign=1):
    return rng.integers(-4, 5, shape) / 8.0


def subnormal(rng, shape, sign=1):
    return rng.standard_normal(shape) * 2.0 ** rng.integers(-80, -60, shape)


def huge_range(rng, shape, sign=1):
    return rng.standard_normal(shape) * 2.0 ** rng.integers(-60, 61, shape)


KINDS = (random, ill_conditioned, lattice, subnormal, huge_range)


def products(kind, dtype, rng):
    """(op, certified, exact) for sums of products over fresh data."""
    x, w, b = kind(rng, (12, 5, 11, 12)).astype(dtype), kind(rng, (6, 5, 3, 2), -1).astype(dtype), kind(rng, (6, 3))[:, 0].astype(dtype)
    left, right = kind(rng, (120, 9)).astype(dtype), kind(rng, (100, 9), -1).astype(dtype)
    many, few = kind(rng, (2, 8, 6, 6)).astype(dtype), kind(rng, (2, 40, 5, 5)).astype(dtype)
    y = certified.conv2d(x, w, b, *GEOMETRY)
    gy = kind(rng, y.value.shape).astype(dtype)
    yield "conv2d", y, exact.conv2d(x, w, b, *GEOMETRY)
    yield "conv2d_input_grad", certified.conv2d_input_grad(gy, w, x.shape, *GEOMETRY), exact.conv2d_input_grad(gy, w, x.shape, *GEOMETRY)
    yield "conv2d_weight_grad", certified.conv2d_weight_grad(few, many, (40, 8, 2, 2)), exact.conv2d_weight_grad(few, many, (40, 8, 2, 2))
    yield "linear", certified.linear(left, right), exact.linear(left, right)
    yield "matmul", certified.matmul(left, right.T.copy()), exact.matmul(left, right.T.copy())


def condition(kind, dtype, rng):
    """The largest condition number sum|x||w| / |sum xw| of the linear layers in `products`."""
    left, right = kind(rng, (120, 9)).astype(dtype), kind(rng, (100, 9), -1).astype(dtype)
    size, y = ops.linear(np.abs(left), np.abs(right)).astype(np.float64), exact.linear(left, right, out_dtype=np.float64)
    return float((size[y != 0] / np.abs(y[y != 0])).max())


def functions(kind, dtype, rng):
    for name in FUNCTIONS:
        x = kind(rng, (2, 300)).astype(dtype)
        x = np.abs(x) if name == "log" else np.maximum(x, dtype(-0.5)) if name == "log1p" else x
        yield name, getattr(certified, name)(x), getattr(exact, name)(x)


def others(kind, dtype, rng):
    """Batch norm, folding, pooling, sums, losses and sampling, once for each batch of comparisons."""
    x, gy = kind(rng, (4, 5, 6, 6)).astype(dtype), kind(rng, (4, 5, 6, 6)).astype(dtype)
    gamma, beta, mean = (kind(rng, (5, 3))[:, 0].astype(dtype) for _ in range(3))
    var = np.abs(kind(rng, (5, 3))[:, 0]).astype(dtype)
    norms, w = (gamma, beta, mean, var), kind(rng, (5, 5, 3, 3)).astype(dtype)
    for training in (False, True):
        yield "batch_norm", certified.batch_norm(x, *norms, training), exact.batch_norm(x, *norms, training)
        rest = (gy, x, gamma, mean, var, training)
        yield "batch_norm_grad", certified.batch_norm_grad(*rest), exact.batch_norm_grad(*rest)
    yield "fuse_conv_bn", certified.fuse_conv_bn(w, beta, *norms), exact.fuse_conv_bn(w, beta, *norms)
    branches = (w, (*norms, 1e-5), w[:, :, :1, :1], (*norms, 1e-3), (*norms, 1e-5))
    yield "fuse_repvgg", certified.fuse_repvgg(*branches), exact.fuse_repvgg(*branches)
    for name, arguments in (("avg_pool2d", (x, 3, 2, 1)), ("global_avg_pool", (x,)), ("sum", (x, (0, 2))), ("mean", (x, 1)),
                            ("log_softmax", (x[:, :, 0, 0],)), ("cross_entropy", (x[:, :, 0, 0], np.arange(4))), ("bce_with_logits", (x, gy)),
                            ("normal_rsample", (x, gy, x)), ("normal_log_prob", (x[:2], gy[:2], np.abs(gy[:2]) + 1)),
                            ("gaussian_kl", (x[:2], gy[:2]))):
        yield name, getattr(certified, name)(*arguments), getattr(exact, name)(*arguments)


def wrong(value, expected):
    """How many elements differ, the signs of zeros included."""
    same = (value == expected) & (np.signbit(value) == np.signbit(expected)) | np.isnan(value) & np.isnan(expected)
    return int(same.size - np.count_nonzero(same))


def compare(task):
    """Count for one kind, dtype and seed: {op: (elements, wrong, repaired)}."""
    kind, dtype, seed, wanted = task
    rng, counts, done = np.random.default_rng(seed), {}, 0
    while done < wanted:
        for source in (products, functions, others) if done == 0 else (products,):
            for name, found, expected in source(kind, dtype, rng):
                pairs = [(found.value, expected)] if isinstance(expected, np.ndarray) else list(zip(found.value, expected, strict=True))
                size = sum(answer.size for _, answer in pairs)
                old = counts.get(name, (0, 0, 0))
                counts[name] = (old[0] + size, old[1] + sum(wrong(value, answer) for value, answer in pairs), old[2] + found.repaired)
                done += size
    return kind.__name__, np.dtype(dtype).name, counts


def correctness(scale):
    """Rows of (dtype, kind, op, elements, wrong, repaired)."""
    from rich.progress import track
    tasks = [(kind, dtype, seed, BATCH) for dtype, goal in GOAL.items() for kind in KINDS
             for seed in range(max(1, round(scale * goal / len(KINDS) / BATCH)))]
    totals = {}
    with multiprocessing.get_context("spawn").Pool() as pool:
        for kind, dtype, counts in track(pool.imap_unordered(compare, tasks), "comparing with exact", total=len(tasks)):
            for name, new in counts.items():
                totals[dtype, kind, name] = tuple(map(sum, zip(totals.get((dtype, kind, name), (0, 0, 0)), new, strict=True)))
    return [{"dtype": key[0], "data": key[1], "op": key[2], "elements": n, "wrong": bad, "repaired": again}
            for key, (n, bad, again) in sorted(totals.items())]


def planted():
    """How many wrong elements are counted where one of them is one ulp off."""
    x, w = np.ones((1, 2, 9, 9), np.float32), np.full((3, 2, 3, 3), 0.1, np.float32)
    value, expected = certified.conv2d(x, w).value, exact.conv2d(x, w)
    value[0, 1, 2, 3] = np.nextafter(value[0, 1, 2, 3], np.float32(9))
    return wrong(value, expected)


def fraction_loop(x, w):
    """The convolution as a user would write it with Fractions."""
    return [[[sum(Fraction(float(x[0, i, r + p, c + q])) * Fraction(float(w[o, i, p, q]))
                  for i in range(w.shape[1]) for p in range(w.shape[2]) for q in range(w.shape[3]))
              for c in range(x.shape[3] - w.shape[3] + 1)] for r in range(x.shape[2] - w.shape[2] + 1)] for o in range(w.shape[0])]


def layer_speed(n, layer, rng):
    """Certified float32 against PyTorch float64 on one layer of RepVGG-A0; certified float64 against plain float64."""
    import torch
    inputs, outputs, size, stride = layer
    x, w = rng.standard_normal((n, inputs, size, size)), rng.standard_normal((outputs, inputs, 3, 3))
    narrow, weights = x.astype(np.float32), w.astype(np.float32)
    tx, tw = torch.from_numpy(narrow.astype(np.float64)), torch.from_numpy(weights.astype(np.float64))
    with torch.no_grad():
        mine, theirs = measure.duel(lambda: certified.conv2d(narrow, weights, None, stride, 1),
                                    lambda: torch.nn.functional.conv2d(tx, tw, None, stride, 1))
    certain, plain = measure.duel(lambda: certified.conv2d(x, w, None, stride, 1), lambda: ops.conv2d(x, w, None, stride, 1))
    found, double = certified.conv2d(narrow, weights, None, stride, 1), certified.conv2d(x, w, None, stride, 1)
    return {"batch": n, "layer": f"{inputs}->{outputs} {size}/{stride}", "f32 ms": 1e3 * mine, "torch f64 ms": 1e3 * theirs,
            "ratio": mine / theirs, "elements": found.value.size, "repaired": found.repaired, "f64 ms": 1e3 * certain,
            "plain f64 ms": 1e3 * plain, "times plain": certain / plain, "f64 repaired": double.repaired}


def speed(progress):
    """All layers, batches of 1 and 8."""
    rng, rows = np.random.default_rng(0), []
    for n in (1, 8):
        for layer in LAYERS:
            rows.append(layer_speed(n, layer, rng))
            progress(rows[-1])
    return rows


def against_fractions():
    """Speed of certified float64 over the loop of Fractions, on a small convolution."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 16, 18, 18)), rng.standard_normal((16, 16, 3, 3))
    mine, theirs = measure.duel(lambda: certified.conv2d(x, w), lambda: None)[0], measure.once(lambda: fraction_loop(x, w))
    return theirs / mine


def batch_norm(progress):
    """Certified training batch norm in float32 against the plain one."""
    rng, rows = np.random.default_rng(0), []
    for shape in ((8, 48, 56, 56), (32, 64, 28, 28), (8, 192, 14, 14)):
        rows.append(batch_norm_speed(shape, rng))
        progress(rows[-1])
    return rows


def batch_norm_speed(shape, rng):
    x, channel = rng.standard_normal(shape).astype(np.float32), np.ones(shape[1], np.float32)
    arguments = (x, channel, channel, 0 * channel, channel)
    mine, plain = measure.duel(lambda: certified.batch_norm(*arguments, training=True), lambda: ops.batch_norm(*arguments, training=True))
    return {"shape": str(shape), "certified ms": 1e3 * mine, "plain ms": 1e3 * plain, "ratio": mine / plain}


def main():
    from benchmarks.run import show, table
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="?", default="certified-results.json")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the 10^7 and 10^6 elements to compare")
    options = parser.parse_args()
    measure.clean_environment()
    record = {"machine": measure.machine()}
    print("\nSpeed on the layers of RepVGG-A0")
    record["speed"] = speed(show)
    record["means"] = {"certified f32 / PyTorch f64": geometric_mean([row["ratio"] for row in record["speed"]]),
                       "certified f64 / plain f64": geometric_mean([row["times plain"] for row in record["speed"]]),
                       "repaired share": sum(row["repaired"] for row in record["speed"]) / sum(row["elements"] for row in record["speed"]),
                       "times faster than Fractions": against_fractions()}
    for name, value in record["means"].items():
        print(f"{name}: {value:.5g}")
    print("\nBatch norm, training, float32")
    record["batch_norm"] = batch_norm(show)
    record["correctness"] = correctness(options.scale)
    table("Against exact, bit by bit", record["correctness"])
    for dtype in ("float32", "float64"):
        rows = [row for row in record["correctness"] if row["dtype"] == dtype]
        print(f"{dtype}: {sum(row['wrong'] for row in rows)} wrong of {sum(row['elements'] for row in rows):,}")
    record["condition"] = {np.dtype(dtype).name: condition(ill_conditioned, dtype, np.random.default_rng(0)) for dtype in GOAL}
    print(f"condition numbers of the ill-conditioned data up to {record['condition']}")
    record["planted"] = planted()
    print(f"planted error of one ulp: {record['planted']} wrong")
    measure.save(record, options.results)


if __name__ == "__main__":
    main()
