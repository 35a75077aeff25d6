"""Bounds of folded parameters, and of fused against multi-branch outputs, on simulated machines."""

from fractions import Fraction

import numpy as np
import pytest

from npreparam import ArgumentError, ShapeError, exact
from npreparam.certified.bounds import BFLOAT16_FLOAT32, FLOAT16_FLOAT32, FLOAT32, FLOAT64, TF32
from npreparam.exact.roots import sqrt_between
from tests.certified import simulate
from tests.certified.test_bounds_batch_norm import machine_normalize
from tests.certified.verdict import float32_bounds as bounds
from tests.certified.verdict import worst_ratio

PROFILES = {"FLOAT32": FLOAT32, "FLOAT64": FLOAT64, "TF32": TF32, "BFLOAT16_FLOAT32": BFLOAT16_FLOAT32, "FLOAT16_FLOAT32": FLOAT16_FLOAT32}
PADDED = ((1, 1), (1, 1))
EPS = 1e-5


def storage(profile):
    """The format that a model's parameters have: the output's."""
    return profile.output


def block(rng, channels, profile, scale=1.0):
    """The branches of a RepVGG block, (w, b, (gamma, beta, mean, var, eps), padding): 3x3, 1x1 and identity."""
    branches = []
    for size in (3, 1, 0):
        w = rng.standard_normal((channels, channels, size, size)) if size else np.eye(channels)[:, :, None, None]
        gamma, beta, mean = rng.standard_normal((3, channels))
        values = [simulate.rounded(v * scale, storage(profile)) for v in (gamma, beta, mean, rng.random(channels) + 0.1)]
        b = None if size != 3 else simulate.rounded(rng.standard_normal(channels), storage(profile))
        branches.append((simulate.rounded(w, storage(profile)), b, (*values, EPS), size // 2))
    return branches


def exact_fold(branch):
    """Weights and bias of a branch as rationals within 2^-200, relatively: w*s and beta + (b - mean)*s."""
    w, b, (gamma, beta, mean, var, eps), _ = branch
    gamma, beta, mean, var, b = (exact.as_fractions(v, "v") for v in (gamma, beta, mean, var, np.zeros(len(w)) if b is None else b))
    s = np.array([g * 2 / sum(sqrt_between(v + Fraction(eps), 300)) for g, v in zip(gamma, var, strict=True)], object)
    return exact.as_fractions(w, "w") * s[:, None, None, None], beta + (b - mean) * s


def centred(w, zero):
    """A 1x1 kernel as a 3x3 one."""
    kernel = np.full((*w.shape[:2], 3, 3), zero, w.dtype)
    kernel[:, :, 3 // 2 - w.shape[2] // 2:][:, :, :w.shape[2], 3 // 2 - w.shape[3] // 2:][..., :w.shape[3]] = w
    return kernel


def machine_fold(branch, profile):
    """Folding in the accumulator's arithmetic, stored in the output's format; as float64."""
    w, b, (gamma, beta, mean, var, eps), _ = branch
    machine = simulate.Machine(simulate.DTYPES[profile.accumulator])
    w, gamma, beta, mean, var = (v.astype(machine.dtype) for v in (w, gamma, beta, mean, var))
    s = machine.out(gamma / np.sqrt(machine.add(var, machine.dtype(eps))))
    shift = machine.add(beta, -machine.mul(mean, s))
    if b is not None:
        shift = machine.add(shift, machine.mul(b.astype(machine.dtype), s))
    return tuple(simulate.rounded(v.astype(np.float64), storage(profile)) for v in (machine.mul(w, s[:, None, None, None]), shift))


def multi_branch(x, branches, profile, rng):
    """Branch by branch, every result stored in the output's format."""
    total, machine = None, simulate.Machine(simulate.DTYPES[profile.output])
    style = "sequential" if profile.order == "tensor_core" else "shuffled"
    for w, b, (gamma, beta, mean, var, eps), padding in branches:
        y = simulate.conv2d(x, w, profile, style, rng, b, ((1, 1), ((padding, padding),) * 2, (1, 1), 1))
        parameters = (v[:, None, None] for v in (gamma, beta, mean, var))
        y = machine_normalize(y.astype(np.float64), *parameters, eps, profile, "centred")
        total = y if total is None else machine.add(total, y)
    return total


def fused(x, branches, profile, rng):
    """One convolution with the sum of the folded kernels, in the output's format."""
    machine = simulate.Machine(simulate.DTYPES[profile.output])
    w, b = None, None
    for branch in branches:
        kernel, shift = machine_fold(branch, profile)
        kernel, shift = centred(kernel, 0.0).astype(machine.dtype), shift.astype(machine.dtype)
        w, b = (kernel, shift) if w is None else (machine.add(w, kernel), machine.add(b, shift))
    style = "sequential" if profile.order == "tensor_core" else "random_tree"
    return simulate.conv2d(x, w.astype(np.float64), profile, style, rng, b.astype(np.float64), ((1, 1), PADDED, (1, 1), 1))


@pytest.mark.parametrize("name", PROFILES)
def test_folded_parameters(name, record_property):
    profile, rng, worst = PROFILES[name], np.random.default_rng(0), [0.0, 0.0]
    for scale in (1.0, 8.0):
        for branch in block(rng, 4, profile, scale):
            w, b, bn, _ = branch
            got, truth = machine_fold(branch, profile), exact_fold(branch)
            limits = bounds.fuse_conv_bn_bound(w, b, *bn, profile)
            worst = [max(old, worst_ratio(*three)) for old, *three in zip(worst, got, truth, limits, strict=True)]
    record_property("error/bound of weights and biases", worst)
    assert min(worst) > 0


@pytest.mark.parametrize("name", PROFILES)
def test_fused_and_multi_branch_outputs(name, record_property):
    """Both are within the bound of the exact map, so their difference is within twice the bound; the fused one more simply."""
    profile, rng, worst = PROFILES[name], np.random.default_rng(1), [0.0, 0.0]
    for channels in (1, 3):
        branches = block(rng, channels, profile)
        x = simulate.rounded(rng.standard_normal((1, channels, 4, 5)), storage(profile))
        kernels, biases = zip(*map(exact_fold, branches), strict=True)
        truth = exact.conv2d(x, sum(centred(k, Fraction(0)) for k in kernels), sum(biases), padding=1, out_dtype=None)
        limit = bounds.branches_bound(x, branches, profile=profile)
        sides = multi_branch(x, branches, profile, rng), fused(x, branches, profile, rng)
        worst = [max(old, worst_ratio(side, truth, limit)) for old, side in zip(worst, sides, strict=True)]
        difference = sides[0].astype(np.float64) - sides[1].astype(np.float64)
        worst_ratio(np.abs(difference), np.full(difference.shape, Fraction(0)), bounds.fusion_difference_bound(x, branches, profile=profile))
    record_property("error/bound of branches, of the fused", worst)
    assert min(worst) > 0


def test_underflow():
    """Products below the smallest subnormal number, doubled again by the scales: both sides are within the bound, whose S is far smaller."""
    rng = np.random.default_rng(3)
    zero, one = np.zeros(2), np.ones(2)
    branches = [(w * 2.0**-75, None, (4096 * one, zero, zero, 2.0**-20 * one, 0.0), padding) for w, _, _, padding in block(rng, 2, FLOAT32)]
    x = simulate.rounded(rng.standard_normal((1, 2, 4, 4)) * 2.0**-75, "float32")
    truth = exact.conv2d(x, sum(centred(exact.as_fractions(w, "w") * 2**22, Fraction(0)) for w, *_ in branches), padding=1, out_dtype=None)
    limit = bounds.branches_bound(x, branches)
    assert worst_ratio(multi_branch(x, branches, FLOAT32, rng), truth, limit) > 0
    assert worst_ratio(fused(x, [(w, b, (*bn[:4], 0.0), p) for w, b, bn, p in branches], FLOAT32, rng), truth, limit) > 0
    with pytest.raises(AssertionError, match="above the bound"):
        worst_ratio(multi_branch(x, branches, FLOAT32, rng), truth, bounds.branches_bound(x * 2.0**20, branches) * 2.0**-40)


def test_planted_faults_are_caught():
    """A fused kernel judged as though it were not rounded to bfloat16, an identity of nine ones, a forgotten mean."""
    rng = np.random.default_rng(2)
    branches = block(rng, 2, BFLOAT16_FLOAT32)
    x = simulate.rounded(rng.standard_normal((1, 2, 4, 4)), "bfloat16")
    kernels, biases = zip(*map(exact_fold, branches), strict=True)
    truth = exact.conv2d(x, sum(centred(k, Fraction(0)) for k in kernels), sum(biases), padding=1, out_dtype=None)
    got = fused(x, branches, BFLOAT16_FLOAT32, rng)
    worst_ratio(got, truth, bounds.branches_bound(x, branches, profile=BFLOAT16_FLOAT32))
    with pytest.raises(AssertionError, match="above the bound"):
        worst_ratio(got, truth, bounds.branches_bound(x, branches))
    w, b, bn, padding = branches[2]
    wrong = [*branches[:2], (np.ones((2, 2, 3, 3)) * w, b, bn, 1)]
    with pytest.raises(AssertionError, match="above the bound"):
        worst_ratio(fused(x, wrong, FLOAT32, rng), truth, bounds.branches_bound(x, branches))
    w, b, bn, padding = branches[0]
    wrong = [(w, b, (*bn[:2], 0 * bn[2], *bn[3:]), padding), *branches[1:]]
    with pytest.raises(AssertionError, match="above the bound"):
        worst_ratio(fused(x, wrong, FLOAT32, rng), truth, bounds.branches_bound(x, branches))
    weights, bias = machine_fold(branches[0], FLOAT16_FLOAT32)
    with pytest.raises(AssertionError, match="above the bound"):
        worst_ratio(weights, kernels[0], bounds.fuse_conv_bn_bound(w, b, *bn)[0])
    with pytest.raises(AssertionError, match="above the bound"):
        worst_ratio(bias, biases[0], bounds.fuse_conv_bn_bound(w, b, *bn)[1])


def test_bad_input():
    one, x = np.ones(1), np.ones((1, 1, 4, 4))
    bn = (one, one, one, one, 0.0)
    with pytest.raises(ArgumentError, match=r"must be \(gamma, beta, mean, var, eps\)"):
        bounds.branches_bound(x, [(x, None, bn[:4], 0)])
    with pytest.raises(ArgumentError, match="`branches` is empty"):
        bounds.branches_bound(x, [])
    with pytest.raises(ShapeError, match=r"`branches` have outputs of shapes \(1, 1, 4, 4\) and \(1, 1, 2, 2\)"):
        bounds.branches_bound(x, [(x[:, :, :1, :1], None, bn, 0), (x[:, :, :3, :3], None, bn, 0)])
    with pytest.raises(ShapeError, match=r"`mean` has shape \(2,\), but must have shape \(1,\)"):
        bounds.fuse_conv_bn_bound(x, None, one, one, np.ones(2), one)
    with pytest.raises(ArgumentError, match=r"`var` \+ `eps` \(=0.0\) must be positive"):
        bounds.fuse_conv_bn_bound(x, None, one, one, one, 0 * one, 0.0)
    with pytest.raises(ArgumentError, match="a fusion is bounded for 'direct' only"):
        bounds.branches_bound(x, [(x, None, bn, 0)], profile=bounds.FFT_FLOAT32)


def test_overflow_makes_the_bound_infinite():
    one, x = np.ones(1), np.ones((1, 1, 1, 1))
    big = (one, one, one, one, 0.0)
    assert bounds.branches_bound(x * 2.0**100, [(x * 2.0**30, None, big, 0)]).item() == np.inf
    assert bounds.branches_bound(x * 2.0**8, [(x * 2.0**9, None, (one * 2.0**-9, one, one, one, 0.0), 0)], profile=FLOAT16_FLOAT32).item() == np.inf
    assert bounds.fuse_conv_bn_bound(x * 2.0**10, None, one * 2.0**10, one, one, one, 0.0, FLOAT16_FLOAT32)[0].item() == np.inf
