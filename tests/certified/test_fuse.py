"""Certified fusion against `exact`, bit by bit, and by certificate; faults planted."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from npreparam import ArgumentError, DTypeError, ShapeError, exact
from npreparam.certified import fuse as module
from npreparam.certified.fuse import fuse_conv_bn, fuse_repvgg
from tests.certified.test_batch_norm import any_bits, kind_of
from tests.exact.halfway import certify_root
from tests.layouts import layouts
from tests.tolerances import assert_same_bits

NAMES = ["float16", "bfloat16", "float32", "float64"]


def random_bn(rng, channels, kind):
    return [*(rng.standard_normal(channels).astype(kind) for _ in range(3)), rng.random(channels).astype(kind), 1e-5]


def agree(got, want):
    for a, b in zip(got.value, want, strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_conv_bn(name, groups):
    kind, rng = kind_of(name), np.random.default_rng(0)
    w, b = rng.standard_normal((6, 4, 2, 3)).astype(kind), rng.standard_normal(6).astype(kind)
    for out in ("same", "float32"):
        for bias in (b, None):
            agree(fuse_conv_bn(w, bias, *(bn := random_bn(rng, 6, kind)), groups, out_dtype=out),
                  exact.fuse_conv_bn(w, bias, *bn, groups, out_dtype=out))
        bn = random_bn(rng, 4 * groups, kind)
        agree(fuse_conv_bn(w, None, *bn, groups, True, out), exact.fuse_conv_bn(w, None, *bn, groups, True, out))


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_repvgg(name, groups):
    kind, rng = kind_of(name), np.random.default_rng(1)
    w3, w1 = (rng.standard_normal((6, 6 // groups, k, k)).astype(kind) for k in (3, 1))
    bns = [random_bn(rng, 6, kind) for _ in range(3)]
    for identity in (None, bns[2]):
        got = fuse_repvgg(w3, bns[0], w1, bns[1], identity, groups)
        agree(got, exact.fuse_repvgg(w3, bns[0], w1, bns[1], identity, groups))
        assert got.repaired <= 2
    agree(fuse_repvgg(w3[:4, : 6 // groups], *(args := (bns4 := random_bn(rng, 4, kind), w1[:4], bns4))),
          exact.fuse_repvgg(w3[:4, : 6 // groups], *args))


@pytest.mark.parametrize("name", NAMES)
def test_branches_that_cancel(name):
    """1x1 weights that all but undo the centre, of equal and of unequal roots: what remains is 2^-53 of the terms, or 0."""
    kind, rng = kind_of(name), np.random.default_rng(2)
    w3 = rng.standard_normal((3, 3, 3, 3)).astype(kind)
    w1 = -w3[:, :, 1:2, 1:2]
    bn = random_bn(rng, 3, kind)
    near = [*bn[:3], np.nextafter(bn[3], kind.type(2)), bn[4]]
    twice = [2 * bn[0], bn[1], bn[2], np.asarray(4 * bn[3]), 4 * bn[4]]
    for other in (bn, near, twice):
        agree(fuse_repvgg(w3, bn, w1, other), exact.fuse_repvgg(w3, bn, w1, other))


@pytest.mark.parametrize("finite", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_any_bits_at_all(name, finite):
    kind, rng = kind_of(name), np.random.default_rng(3)
    for _ in range(5):
        arguments = [any_bits(rng, shape, kind) for shape in ((4, 4, 3, 3), (4, 4, 1, 1), *[(4,)] * 12)]
        with np.errstate(invalid="ignore"):  # ml_dtypes, of a signalling NaN
            if finite:
                arguments = [np.where(np.isfinite(v), v, np.ones_like(v)) for v in arguments]
            w3, w1, *stats = arguments
            bns = [[*stats[i : i + 3], np.where(np.isfinite(v := np.abs(stats[i + 3])), v, np.ones_like(v)), 1e-5] for i in (0, 4, 8)]
        agree(fuse_repvgg(w3, bns[0], w1, bns[1], bns[2]), exact.fuse_repvgg(w3, bns[0], w1, bns[1], bns[2]))
        agree(fuse_conv_bn(w3, stats[0], *bns[0]), exact.fuse_conv_bn(w3, stats[0], *bns[0]))


@given(st.data())
@settings(max_examples=40)
def test_chosen_by_hypothesis(data):
    kind = np.dtype(data.draw(st.sampled_from([np.float16, np.float32, np.float64])))
    floats = st.floats(width=kind.itemsize * 8, allow_infinity=False, allow_nan=False)
    w3, w1, *stats = (data.draw(arrays(kind, shape, elements=floats)) for shape in ((1, 1, 3, 3), (1, 1, 1, 1), *[1] * 8))
    bns = [[*stats[i : i + 3], np.abs(stats[i + 3]), 0.25] for i in (0, 4)]
    agree(fuse_repvgg(w3, bns[0], w1, bns[1], bns[0]), exact.fuse_repvgg(w3, bns[0], w1, bns[1], bns[0]))


def test_certificates_of_a_large_layer():
    rng = np.random.default_rng(4)
    w, bn = rng.standard_normal((64, 32, 3, 3)), random_bn(rng, 64, np.float64)
    (fused, _), repaired = fuse_conv_bn(w, None, *bn)
    assert repaired == 0
    for at in zip(*(rng.integers(0, n, 300) for n in w.shape), strict=True):
        o = at[0]
        certify_root(fused[at], 0, Fraction(w[at]) * Fraction(bn[0][o]), Fraction(bn[3][o]) + Fraction(bn[4]))


def test_layouts():
    rng = np.random.default_rng(5)
    w, bn = rng.standard_normal((4, 4, 3, 3)).astype(np.float32), random_bn(rng, 4, np.float32)
    want = fuse_conv_bn(w, None, *bn).value
    for _, other in layouts(w):
        agree(fuse_conv_bn(other, None, *bn), want)
        agree(fuse_repvgg(other, bn, other[:, :, 1:2, 1:2], bn, bn), exact.fuse_repvgg(w, bn, w[:, :, 1:2, 1:2], bn, bn))


def test_bad_input():
    one = np.ones(1)
    w3, w1, bn = np.ones((1, 1, 3, 3)), np.ones((1, 1, 1, 1)), (one, one, one, one, 1e-5)
    with pytest.raises(ShapeError, match="`w1` has shape"):
        fuse_repvgg(w3, bn, w3, bn)
    with pytest.raises(ShapeError, match="`groups` \\(=2\\)"):
        fuse_conv_bn(w3, None, *bn, groups=2)
    with pytest.raises(ShapeError, match="4 axes"):
        fuse_conv_bn(one, None, *bn)
    with pytest.raises(ArgumentError, match="must be positive"):
        fuse_conv_bn(w3, None, one, one, one, -one)
    with pytest.raises(DTypeError, match="`w` has dtype"):
        fuse_conv_bn(w3.astype(int), None, *bn)
    with pytest.raises(DTypeError, match="`w1` has dtype"):
        fuse_repvgg(w3, bn, w1.astype(int), bn)


@pytest.mark.parametrize("fault", ["one float of the scale", "the bound of a slope left out", "one ulp"])
def test_faults_are_caught(monkeypatch, fault):
    rng = np.random.default_rng(6)
    w, bn = rng.standard_normal((8, 8, 3, 3)), random_bn(rng, 8, np.float64)
    as_floats, rounded_affine, row = module.as_floats, module.rounded_affine, module.row
    if fault == "one float of the scale":
        monkeypatch.setattr(module, "as_floats", lambda *args: ([as_floats(*args)[0][0], 0.0], 0.0))
    elif fault == "one ulp":
        monkeypatch.setattr(module, "rounded_affine", lambda *args: (np.nextafter(rounded_affine(*args)[0], 9), 0))
    else:
        monkeypatch.setattr(module, "row", lambda center, slope, **more: row(center, ([slope[0][0] * (1 + 2.0**-52), 0.0], 0.0), **more))
    with pytest.raises(AssertionError):
        agree(fuse_conv_bn(w, None, *bn), exact.fuse_conv_bn(w, None, *bn))
