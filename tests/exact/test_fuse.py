"""Fusion: as an identity where the roots are rational, by certificate where they are not, and against the fusion in float64."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, DTypeError, ShapeError, exact, fuse
from tests.exact.halfway import certify_root, certify_sum
from tests.tolerances import assert_within, relative_bound


def integers(rng, *shape):
    return rng.integers(-4, 5, shape).astype(np.float64)


def rational_bn(rng, channels):
    """A batch norm of distinct gammas whose var + eps is 1/4, 1, 4 or 16: with small integers everything is exact in float64."""
    beta, mean = integers(rng, 2, channels)
    gamma = rng.permutation([-4.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 4.0])[:channels]
    return gamma, beta, mean, rng.choice([0.125, 0.875, 3.875, 15.875], channels), 0.125


def evaluate(x, bn):
    return exact.batch_norm(x, *bn[:4], eps=bn[4])


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_conv_bn_is_the_same_map(groups, bias):
    """Zero tolerance, since nothing is rounded; for the transposed convolution too, whose output channels lie along axis 1 by groups."""
    rng = np.random.default_rng(groups)
    x, w, b, bn = integers(rng, 2, 2 * groups, 4, 3), integers(rng, 3 * groups, 2, 2, 2), integers(rng, 3 * groups), rational_bn(rng, 3 * groups)
    b = b if bias else None
    fused = exact.fuse_conv_bn(w, b, *bn, groups=groups)
    assert (exact.conv2d(x, *fused, groups=groups) == evaluate(exact.conv2d(x, w, b, groups=groups), bn)).all()
    w = integers(rng, 2 * groups, 3, 2, 2)
    fused = exact.fuse_conv_bn(w, b, *bn, groups=groups, transposed=True)
    y = exact.conv_transpose2d(x, w, b, stride=2, groups=groups)
    assert (exact.conv_transpose2d(x, *fused, stride=2, groups=groups) == evaluate(y, bn)).all()
    planted = exact.fuse_conv_bn(w, b, bn[0][::-1], *bn[1:], groups=groups, transposed=True)[0]
    assert not (exact.conv_transpose2d(x, planted, fused[1], stride=2, groups=groups) == evaluate(y, bn)).all()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("identity", [False, True])
def test_repvgg_is_the_sum_of_its_branches(groups, stride, identity):
    rng = np.random.default_rng(stride)
    channels = 2 * groups
    x, w3, w1 = integers(rng, 1, channels, 4, 5), integers(rng, channels, 2, 3, 3), integers(rng, channels, 2, 1, 1)
    bn3, bn1, bn_identity = (rational_bn(rng, channels) for _ in range(3))
    w, b = exact.fuse_repvgg(w3, bn3, w1, bn1, bn_identity if identity else None, groups)
    y = evaluate(exact.conv2d(x, w3, stride=stride, padding=1, groups=groups), bn3) + evaluate(exact.conv2d(x, w1, stride=stride, groups=groups), bn1)
    if identity:
        y = y + evaluate(x[:, :, ::stride, ::stride], bn_identity)
    assert (exact.conv2d(x, w, b, stride, 1, groups=groups) == y).all()
    if identity:  # planted: ones everywhere are a box sum, not the identity
        box = w + (1 - fuse.identity_kernel(channels, groups)) * bn_identity[0][:, None, None, None]
        assert not (exact.conv2d(x, box, b, stride, 1, groups=groups) == y).all()


numbers = st.floats(-100, 100, width=32)
variances = st.floats(0, 100, width=32)
batch_norms = st.tuples(numbers, numbers, numbers, variances, st.sampled_from([1e-5, 1e-3, 0.5]))


def arrays(bn):
    return (*(np.float32([value]) for value in bn[:4]), bn[4])


def fractions(bn):
    gamma, beta, mean, var, eps = map(Fraction, bn)
    return gamma, beta, mean, var + eps


@given(numbers, numbers, batch_norms)
def test_conv_bn_certificate(weight, bias, bn):
    w, b = exact.fuse_conv_bn(np.float32(weight).reshape(1, 1, 1, 1), np.float32([bias]), *arrays(bn))
    gamma, beta, mean, v = fractions(bn)
    certify_root(w[0, 0, 0, 0], 0, Fraction(weight) * gamma, v)
    certify_root(b[0], beta, (Fraction(bias) - mean) * gamma, v)


@given(numbers, numbers, batch_norms, batch_norms, batch_norms, st.booleans())
def test_repvgg_certificate(at_centre, pointwise, bn3, bn1, bn_identity, same_variance):
    """Three branches, whose roots are now and then the same."""
    if same_variance:
        bn1, bn_identity = ((*bn[:3], *bn3[3:]) for bn in (bn1, bn_identity))
    w3 = np.full((1, 1, 3, 3), at_centre, np.float32)
    w, b = exact.fuse_repvgg(w3, arrays(bn3), np.full((1, 1, 1, 1), pointwise, np.float32), arrays(bn1), arrays(bn_identity))
    (g3, beta3, mean3, v3), (g1, beta1, mean1, v1), (gi, betai, meani, vi) = map(fractions, (bn3, bn1, bn_identity))
    certify_sum(w[0, 0, 1, 1], 0, [(Fraction(at_centre) * g3, v3), (Fraction(pointwise) * g1, v1), (gi, vi)])
    certify_root(w[0, 0, 0, 1], 0, Fraction(at_centre) * g3, v3)
    certify_sum(b[0], beta3 + beta1 + betai, [(-mean3 * g3, v3), (-mean1 * g1, v1), (-meani * gi, vi)])


def test_branches_that_cancel_leave_an_exact_tie():
    """s3*w3 + s1*w1 = 1/sqrt(2) - 2/sqrt(8) = 0 beside an identity of 1 + 2^-24, a tie in float32 that goes to the even 1."""
    one, zero = np.ones(1), np.zeros(1)
    tie = 1 + 2.0**-24
    bn3, bn1, bn_identity = (one, zero, zero, 2 * one, 0.0), (-2 * one, zero, zero, 8 * one, 0.0), (tie * one, zero, zero, one, 0.0)
    w3 = np.ones((1, 1, 3, 3), np.float32)
    w, b = exact.fuse_repvgg(w3, bn3, w3[:, :, :1, :1], bn1, bn_identity)
    assert (w[0, 0, 1, 1], b[0]) == (1, 0)
    certify_root(w[0, 0, 0, 0], 0, 1, 2)
    above = exact.fuse_repvgg(w3, bn3, w3[:, :, :1, :1] * np.float32(1 - 2.0**-20), bn1, bn_identity)[0]
    certify_sum(above[0, 0, 1, 1], Fraction(tie), [(1, 2), (-2 * (1 - Fraction(1, 2**20)), 8)])
    assert above[0, 0, 1, 1] > 1


def test_the_fusion_in_float64_is_near():
    """At most 7 roundings for a weight (`fuse_repvgg`), 5 for `fuse_conv_bn`, of the sum of the branches' magnitudes; the truth rounds once."""
    rng = np.random.default_rng(5)
    w3, w1 = rng.standard_normal((2, 2, 3, 3)), rng.standard_normal((2, 2, 1, 1))
    bns = [(*rng.standard_normal((3, 2)), rng.random(2), 1e-5) for _ in range(3)]
    branches = fuse.branch_kernels(w3, bns[0], w1, *bns[1:])
    sizes = [(w, np.abs(bn[1]) + np.abs(bn[2] * bn[0]) / np.sqrt(bn[3] + bn[4])) for (w, _), bn in zip(branches, bns, strict=True)]
    got, truth = fuse.fuse_repvgg(w3, bns[0], w1, *bns[1:]), exact.fuse_repvgg(w3, bns[0], w1, *bns[1:])
    for part in (0, 1):
        assert_within(got[part], truth[part], relative_bound(8, sum(np.abs(size[part]) for size in sizes), np.float64))
    got, truth = fuse.fuse_conv_bn(w3, None, *bns[0]), exact.fuse_conv_bn(w3, None, *bns[0])
    assert_within(got[0], truth[0], relative_bound(6, truth[0], np.float64))
    assert_within(got[1], truth[1], relative_bound(6, sizes[0][1], np.float64))
    wrong = bns[0][0] / (np.sqrt(bns[0][3]) + 1e-5)
    with pytest.raises(AssertionError):  # planted: eps beside the root instead of under it
        assert_within(w3 * wrong[:, None, None, None], truth[0], relative_bound(6, truth[0], np.float64))


def test_special_values_stay_with_the_taps_that_have_them():
    nan, inf = math.nan, math.inf
    one, zero = np.ones(1), np.zeros(1)
    plain, infinite = (one, zero, zero, one, 0.0), (inf * one, zero, zero, one, 0.0)
    w3, w1 = np.ones((1, 1, 3, 3)), np.zeros((1, 1, 1, 1))
    w, b = exact.fuse_repvgg(w3, plain, w1, infinite)
    assert np.isnan(w[0, 0, 1, 1])  # 0*inf, at the centre alone: elsewhere the 1x1 branch has no term
    assert (w == 1).sum() == 8
    np.testing.assert_array_equal(b, [nan])  # 0 - 0*inf
    w, b = exact.fuse_conv_bn(np.array([[[[inf, -1.0, nan]]]]), -inf * one, 2 * one, one, one, 4 * one, 0.0)
    np.testing.assert_array_equal(w, [[[[inf, -1, nan]]]])
    np.testing.assert_array_equal(b, [-inf])
    assert exact.fuse_conv_bn(w[..., 1:2], None, one, one, one, inf * one)[0].item() == 0  # -1/sqrt(inf)


ONE = np.ones(1)
BN = (ONE, ONE, ONE, ONE, 1e-5)
W3, W1 = np.ones((1, 1, 3, 3)), np.ones((1, 1, 1, 1))


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: exact.fuse_conv_bn(W3[0], None, *BN), ShapeError, r"`w` has shape \(1, 3, 3\), but must have 4 axes"),
    (lambda: exact.fuse_conv_bn(W3, None, *BN, groups=2), ShapeError, r"axis 0 of `w` \(=1\) must be divisible by `groups` \(=2\)"),
    (lambda: exact.fuse_conv_bn(W3, np.ones(2), *BN), ShapeError, r"`b` has shape \(2,\), but must have shape \(1,\)"),
    (lambda: exact.fuse_conv_bn(W3, None, np.ones(2), *BN[1:]), ShapeError, r"`gamma of bn` has shape \(2,\)"),
    (lambda: exact.fuse_conv_bn(W3, None, *BN[:3], -ONE), ArgumentError, r"`var \+ eps` of bn \(=-0.99999\) of channel 0 must be positive"),
    (lambda: exact.fuse_conv_bn(W3, None, *BN[:3], np.nan * ONE), ArgumentError, r"`var \+ eps` of bn \(=nan\)"),
    (lambda: exact.fuse_conv_bn(W3, None, *BN, out_dtype=None), DTypeError, "`out_dtype`"),
    (lambda: exact.fuse_repvgg(W1, BN, W1, BN), ShapeError, r"`w3` has shape \(1, 1, 1, 1\), but must have shape \(1, 1, 3, 3\)"),
    (lambda: exact.fuse_repvgg(ONE, BN, W1, BN), ShapeError, r"`w3` has shape \(1,\)"),
    (lambda: exact.fuse_repvgg(W3, BN, W3, BN), ShapeError, r"`w1` has shape \(1, 1, 3, 3\), but must have shape \(1, 1, 1, 1\)"),
    (lambda: exact.fuse_repvgg(W3, BN[:4], W1, BN), ArgumentError, r"`bn3` must be \(gamma, beta, mean, var, eps\)"),
    (lambda: exact.fuse_repvgg(W3, BN, W1, BN, groups=2), ShapeError, r"`out_channels` \(=1, axis 0 of `w3`\)"),
    (lambda: exact.fuse_repvgg(np.ones((1, 2, 3, 3)), BN, np.ones((1, 2, 1, 1)), BN, BN), ShapeError, r"`in_channels` \(=2\) equal to"),
])
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
