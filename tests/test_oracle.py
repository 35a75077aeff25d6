"""Our own implementation, judged by our own oracle: every op within the derived bound of the correctly rounded answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import certified, exact, ops
from npreparam.certified import bounds
from npreparam.fuse import fuse_conv_bn, fuse_repvgg
from tests.tolerances import assert_within, relative_bound

# what the kernels declare: convolutions accumulate in their own format; batch norm, pooling and folding in float64, rounded once
CHAIN = {np.float32: bounds.FLOAT32, np.float64: bounds.FLOAT64}
WIDE = {np.float32: bounds.Profile("float32", "float64", output="float32"), np.float64: bounds.FLOAT64}
DTYPES = st.sampled_from([np.float32, np.float64])
SEEDS = st.integers(0, 2**32)


def judged(actual, truth, bound):
    """The truth is correctly rounded to the dtype of `actual`, which adds half an ulp to the permitted error."""
    assert_within(actual, truth, bound + relative_bound(1, truth, truth.dtype))


def numbers(rng, *shape, dtype):
    return (rng.standard_normal(shape) * 2.0 ** rng.integers(-3, 4, shape)).astype(dtype)


def norms(rng, channels, dtype):
    gamma, beta, mean = (numbers(rng, channels, dtype=dtype) for _ in range(3))
    return gamma, beta, mean, (np.abs(numbers(rng, channels, dtype=dtype)) + dtype(0.01))


@given(SEEDS, DTYPES, st.sampled_from([1, 2]), st.sampled_from([1, 2, 3]), st.sampled_from([0, 1, 2]))
def test_convolutions(seed, dtype, groups, stride, padding):
    rng = np.random.default_rng(seed)
    x, w, b = numbers(rng, 2, 4, 7, 6, dtype=dtype), numbers(rng, 6, 4 // groups, 3, 2, dtype=dtype), numbers(rng, 6, dtype=dtype)
    geometry = {"stride": stride, "padding": padding, "groups": groups}
    y = ops.conv2d(x, w, b, **geometry)
    judged(y, certified.conv2d(x, w, b, **geometry).value, bounds.conv2d_bound(x, w, b, **geometry, profile=CHAIN[dtype]))
    judged(ops.conv2d_input_grad(y, w, x.shape, **geometry), certified.conv2d_input_grad(y, w, x.shape, **geometry).value,
           bounds.conv2d_input_grad_bound(y, w, x.shape, **geometry, profile=CHAIN[dtype]))
    judged(ops.conv2d_weight_grad(y, x, w.shape, **geometry), certified.conv2d_weight_grad(y, x, w.shape, **geometry).value,
           bounds.conv2d_weight_grad_bound(y, x, w.shape, **geometry, profile=CHAIN[dtype]))


@given(SEEDS, DTYPES)
def test_linear_and_pooling(seed, dtype):
    rng = np.random.default_rng(seed)
    x, w, b = numbers(rng, 5, 40, dtype=dtype), numbers(rng, 7, 40, dtype=dtype), numbers(rng, 7, dtype=dtype)
    judged(ops.linear(x, w, b), certified.linear(x, w, b).value, bounds.linear_bound(x, w, b, profile=CHAIN[dtype]))
    image = numbers(rng, 2, 3, 7, 8, dtype=dtype)
    judged(ops.avg_pool2d(image, 3, 2, 1), certified.avg_pool2d(image, 3, 2, 1).value, bounds.avg_pool2d_bound(image, 3, 2, 1, profile=WIDE[dtype]))


@given(SEEDS, DTYPES, st.sampled_from([0.0, 10.0, 1e4]))
def test_batch_norm(seed, dtype, offset):
    rng = np.random.default_rng(seed)
    x = numbers(rng, 3, 4, 5, 5, dtype=dtype) + dtype(offset)
    gamma, beta, mean, var = norms(rng, 4, dtype)
    judged(ops.batch_norm(x, gamma, beta, mean, var), certified.batch_norm(x, gamma, beta, mean, var).value,
           bounds.batch_norm_eval_bound(x, gamma, beta, mean, var, profile=WIDE[dtype]))
    y = certified.batch_norm(x, gamma, beta, mean, var, training=True).value[0]
    judged(ops.batch_norm(x, gamma, beta, mean, var, training=True)[0], y, bounds.batch_norm_train_bound(x, gamma, beta, profile=WIDE[dtype]))


def check_folding(seed, dtype, fold=fuse_conv_bn):
    rng = np.random.default_rng(seed)
    w, b, bn = numbers(rng, 4, 3, 3, 3, dtype=dtype), numbers(rng, 4, dtype=dtype), norms(rng, 4, dtype)
    for actual, truth, bound in zip(fold(w, b, *bn), exact.fuse_conv_bn(w, b, *bn), bounds.fuse_conv_bn_bound(w, b, *bn, profile=WIDE[dtype]),
                                    strict=True):
        judged(actual, truth, bound)


@given(SEEDS, DTYPES)
def test_folding(seed, dtype):
    check_folding(seed, dtype)


@given(SEEDS, DTYPES)
def test_repvgg_parameters_are_within_two_ulps_of_the_largest_branch(seed, dtype):
    """Each branch is folded within `fuse_conv_bn_bound` in float64; two additions and one rounding to the dtype follow."""
    rng = np.random.default_rng(seed)
    w3, w1 = numbers(rng, 3, 3, 3, 3, dtype=dtype), numbers(rng, 3, 3, 1, 1, dtype=dtype)
    bn3, bn1, identity = ((*norms(rng, 3, dtype), 1e-5) for _ in range(3))
    eye = np.eye(3, dtype=dtype)[:, :, None, None]
    folds = [(w3, bn3), (np.pad(w1, ((0, 0), (0, 0), (1, 1), (1, 1))), bn1), (np.pad(eye, ((0, 0), (0, 0), (1, 1), (1, 1))), identity)]
    parts = [(fuse_conv_bn(w.astype(float), None, *(v.astype(float) for v in bn[:4]), bn[4]),
              bounds.fuse_conv_bn_bound(w.astype(float), None, *(v.astype(float) for v in bn[:4]), bn[4], profile=bounds.FLOAT64)) for w, bn in folds]
    found, truths = fuse_repvgg(w3, bn3, w1, bn1, identity), exact.fuse_repvgg(w3, bn3, w1, bn1, identity)
    for i, (actual, truth) in enumerate(zip(found, truths, strict=True)):
        magnitude = sum(np.abs(values[i]) for values, _ in parts)
        judged(actual, truth, sum(bound[i] for _, bound in parts) + relative_bound(2, magnitude, np.float64) + relative_bound(1, truth, dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_fold_in_float16_or_one_of_a_relative_error_of_2_to_the_minus_20_is_caught(dtype):
    def coarse(*arguments):
        return [(values * (1 + 2.0**-20)).astype(dtype) for values in fuse_conv_bn(*arguments)]

    with pytest.raises(AssertionError):
        check_folding(0, dtype, coarse)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_ulps_too_many_are_caught_in_batch_norm(dtype):
    rng = np.random.default_rng(0)
    x, bn = numbers(rng, 3, 4, 5, 5, dtype=dtype), norms(rng, 4, dtype)
    y = ops.batch_norm(x, *bn)
    bound = bounds.batch_norm_eval_bound(x, *bn, profile=WIDE[dtype])
    worst = np.unravel_index(np.argmin(bound / np.abs(y)), y.shape)
    y[worst] += 1.01 * bound[worst] + 2 * np.spacing(np.abs(y[worst]))
    with pytest.raises(AssertionError):
        judged(y, certified.batch_norm(x, *bn).value, bound)
