"""Folding batch norm into the convolution before it, transposed and grouped ones included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, DTypeError, ShapeError
from npreparam.fuse import fuse_conv_bn
from tests import naive
from tests.fuse.blocks import random_bn
from tests.tolerances import assert_same_bits, assert_within, fusion_bound


def apply(x, w, b, groups, transposed):
    """The convolution (stride 2, padding 1) or transposed convolution by its loop nest."""
    geometry = (2, 2), ((1, 1), (1, 1)), (1, 1), groups
    if not transposed:
        return naive.conv2d(x, w, b, *geometry)
    height, width = (2 * (n - 1) - 2 + k for n, k in zip(x.shape[2:], w.shape[2:], strict=True))
    y = naive.conv2d_input_grad(x, w, (x.shape[0], w.shape[1] * groups, height, width), *geometry)
    return y if b is None else y + b.reshape(1, -1, 1, 1)


def check_fold(case, fuse):
    """The one checker: what `fuse` returns against the convolution followed by batch norm."""
    x, w, b, bn, groups, transposed = case
    expected = naive.batch_norm(apply(x, w, b, groups, transposed), *bn)
    scale = np.abs(bn[0] / np.sqrt(bn[3] + bn[4])).reshape(1, -1, 1, 1)
    terms = apply(np.abs(x), np.abs(w), np.abs(np.zeros_like(bn[1]) if b is None else b), groups, transposed)
    absolute = scale * (terms + np.abs(bn[2]).reshape(1, -1, 1, 1)) + np.abs(bn[1]).reshape(1, -1, 1, 1)
    actual = apply(x, *fuse(w, b, *bn, groups=groups, transposed=transposed), groups, transposed)
    terms = w.size // groups + 1  # no fewer than the taps of one output, and the bias
    assert_within(actual, expected, fusion_bound(terms, 1, absolute, x.dtype))


def random_case(rng, inputs, outputs, groups, kernel, bias, transposed, eps=1e-3):
    """inputs and outputs are per group."""
    shape = (inputs * groups, outputs) if transposed else (outputs * groups, inputs)
    w, x = rng.standard_normal((*shape, *kernel)), rng.standard_normal((2, inputs * groups, 4, 5))
    return x, w, rng.standard_normal(outputs * groups) if bias else None, random_bn(rng, outputs * groups, eps=eps), groups, transposed


cases = st.builds(lambda seed, *rest: random_case(np.random.default_rng(seed), *rest), st.integers(0, 2**32), st.integers(1, 3),
                  st.integers(1, 3), st.integers(1, 3), st.tuples(st.integers(2, 4), st.integers(2, 4)), st.booleans(), st.booleans(),
                  st.sampled_from([0.0, 1e-5, 1e-3, 1.0]))


@given(cases)
def test_folded_equals_convolution_then_batch_norm(case):
    check_fold(case, fuse_conv_bn)


def own_fold(fault=None):
    def fuse(w, b, gamma, beta, mean, var, eps, groups, transposed):
        scale = gamma / np.sqrt(var + (0 if fault == "no eps" else eps))
        b = np.zeros_like(beta) if b is None or fault == "bias forgotten" else b
        mean = np.zeros_like(mean) if fault == "mean forgotten" else mean
        shift = beta - mean * scale + (b if fault == "bias not scaled" else b * scale)
        if not transposed:
            return w * scale.reshape(-1, 1, 1, 1), shift
        columns = np.empty_like(w)
        for i in range(w.shape[0]):
            group = 0 if fault == "groups of a transposed convolution" else i // (w.shape[0] // groups)
            for o in range(w.shape[1]):
                columns[i, o] = w[i, o] * scale[group * w.shape[1] + o]
        return columns, shift

    return fuse


@pytest.mark.parametrize("fault", ["no eps", "bias forgotten", "bias not scaled", "mean forgotten", "groups of a transposed convolution"])
def test_planted_faults_are_caught(fault):
    case = random_case(np.random.default_rng(0), 2, 3, 2, (3, 3), True, True)
    check_fold(case, own_fold())
    with pytest.raises(AssertionError, match="permitted error"):
        check_fold(case, own_fold(fault))


def test_numbers_that_do_not_round():
    w, b = fuse_conv_bn(np.array([[[[3.0]]], [[[5.0]]]]), np.array([1.0, 2.0]), gamma=np.array([2.0, -6.0]), beta=np.array([1.0, 0.0]),
                        mean=np.array([5.0, 1.0]), var=np.array([15.75, 8.75]), eps=0.25)
    assert w.ravel().tolist() == [1.5, -10.0]
    assert b.tolist() == [-1.0, -2.0]


@pytest.mark.parametrize("transposed", [False, True])
def test_rounded_once_to_the_dtype_of_the_weights(transposed):
    _, w, b, bn, groups, _ = random_case(np.random.default_rng(0), 2, 2, 2, (3, 3), True, transposed)
    single = [v.astype(np.float32) for v in (w, b, *bn[:4])]
    double = fuse_conv_bn(*(v.astype(np.float64) for v in single), bn[4], groups, transposed)
    for actual, wide in zip(fuse_conv_bn(*single, bn[4], groups, transposed), double, strict=True):
        assert_same_bits(actual, wide.astype(np.float32))


@pytest.mark.parametrize("transposed", [False, True])
def test_pytorch_agrees(transposed):
    torch = pytest.importorskip("torch")
    _, w, b, (gamma, beta, mean, var, eps), groups, _ = random_case(np.random.default_rng(0), 2, 3, 1, (3, 3), True, transposed)
    tensors = [torch.from_numpy(v) for v in (w, b, mean, var)]
    theirs = torch.nn.utils.fusion.fuse_conv_bn_weights(*tensors, eps, torch.from_numpy(gamma), torch.from_numpy(beta), transposed)
    scale = np.abs(gamma) / np.sqrt(var + eps)
    kernels, biases = (pair for pair in zip(fuse_conv_bn(w, b, gamma, beta, mean, var, eps, groups, transposed),
                                            (part.detach().numpy() for part in theirs), strict=True))
    scaled = np.abs(w) * (scale[None, :, None, None] if transposed else scale[:, None, None, None])
    assert_within(*kernels, fusion_bound(0, 1, scaled, np.float64))
    assert_within(*biases, fusion_bound(0, 1, scale * (np.abs(b) + np.abs(mean)) + np.abs(beta), np.float64))


W, ONE = np.zeros((4, 2, 3, 3)), np.ones(4)
BAD = {
    "w of 2 axes": ((W[:, :, 0, 0], None, ONE, ONE, ONE, ONE), ShapeError, "`w` has shape .* 4 axes"),
    "groups": ((W, None, ONE, ONE, ONE, ONE, 1e-5, 3), ShapeError, r"axis 0 of `w` \(=4\) must be divisible by `groups` \(=3\)"),
    "b": ((W, ONE[:3], ONE, ONE, ONE, ONE), ShapeError, r"`b` has shape \(3,\)"),
    "b of another dtype": ((W, ONE.astype(np.float32), ONE, ONE, ONE, ONE), DTypeError, "`b` has dtype float32"),
    "gamma": ((W, None, ONE[:2], ONE, ONE, ONE), ShapeError, "`gamma of bn` has shape"),
    "transposed channels": ((W, None, ONE, ONE, ONE, ONE, 1e-5, 1, True), ShapeError, r"must have shape \(2,\)"),
    "var": ((W, None, ONE, ONE, ONE, -ONE), ArgumentError, "`var \\+ eps` of bn must be positive: the smallest `var` is -1.0"),
    "complex": ((W.astype(complex), None, ONE, ONE, ONE, ONE), DTypeError, "`w` has dtype complex128"),
    "a list": (([[1.0]], None, ONE, ONE, ONE, ONE), DTypeError, r"`w` \(a list\) must be a NumPy array"),
}


@pytest.mark.parametrize("row", BAD)
def test_bad_arguments(row):
    arguments, kind, message = BAD[row]
    with pytest.raises(kind, match=message):
        fuse_conv_bn(*arguments)
