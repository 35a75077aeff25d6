"""Certified pooling, ReLU and leaky ReLU against `exact`, bit by bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from npreparam import ArgumentError, DTypeError, ShapeError, exact, kernels
from npreparam.certified.activation import leaky_relu, relu
from npreparam.certified.pool import avg_pool2d, global_avg_pool, max_pool2d
from tests import naive
from tests.certified.test_batch_norm import any_bits, kind_of
from tests.layouts import layouts
from tests.tolerances import assert_same_bits

NAMES = ["float16", "bfloat16", "float32", "float64"]
GEOMETRIES = [(2,), (3, 2, 1), ((2, 3), 1, (1, 0)), ((3, 2), (2, 1), ((1, 0), (0, 1))), (3, 2, "SAME_UPPER"), (1,)]


def same(got, want):
    with np.errstate(invalid="ignore"):
        assert_same_bits(got.value, want)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("name", NAMES)
def test_pooling(name, geometry):
    kind, rng = kind_of(name), np.random.default_rng(0)
    normal = rng.standard_normal((2, 2, 5, 6)).astype(kind)
    lattice = rng.integers(-2, 3, (2, 2, 5, 6)).astype(kind)
    for x in (normal, lattice, any_bits(rng, (2, 2, 5, 6), kind)):
        for out in ("same", "float16", "float64"):
            for more in ({"out_dtype": out}, {"out_dtype": out, "count_include_pad": False}):
                same(avg_pool2d(x, *geometry, **more), exact.avg_pool2d(x, *geometry, **more))
            same(max_pool2d(x, *geometry, out_dtype=out), exact.max_pool2d(x, *geometry, out_dtype=out))
            same(global_avg_pool(x, out), exact.global_avg_pool(x, out))


@pytest.mark.parametrize("name", NAMES)
def test_specials_and_zeros(name):
    kind = kind_of(name)
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, -1.0]).astype(kind)
    x = np.random.default_rng(1).choice(values, (3, 3, 6, 6))
    x[0, 0] = -0.0
    x[0, 1] = -np.inf
    same(avg_pool2d(x, 2, 1, 1), exact.avg_pool2d(x, 2, 1, 1))
    same(max_pool2d(x, 2, 1, 1), exact.max_pool2d(x, 2, 1, 1))
    same(relu(x), exact.relu(x))
    same(leaky_relu(x), exact.leaky_relu(x))


@given(arrays(np.float32, (1, 1, 3, 3), elements=st.floats(width=32)))
def test_chosen_by_hypothesis(x):
    same(avg_pool2d(x, 2, 1), exact.avg_pool2d(x, 2, 1))
    same(max_pool2d(x, 2, 1), exact.max_pool2d(x, 2, 1))


def test_layouts_and_a_large_plane():
    x = np.random.default_rng(2).standard_normal((2, 3, 40, 41)).astype(np.float32)
    want = global_avg_pool(x)
    same(want, np.array([[exact.mean(plane) for plane in image] for image in x]))
    for _, other in layouts(x):
        same(global_avg_pool(other), want.value)
        same(avg_pool2d(other, 3, 2, 1), avg_pool2d(x, 3, 2, 1).value)
    assert (max_pool2d(x, 3, 2, 1).value == naive.max_pool2d(x, (3, 3), (2, 2), ((1, 1), (1, 1)))[0]).all()


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_half_through_relu(name):
    x = np.arange(1 << 16, dtype=np.uint16).view(kind_of(name))
    for out in ("same", "float32"):
        same(relu(x, out), exact.relu(x, out))
        for slope in (0.01, 0.25, 0.0, -1.5, 2):
            same(leaky_relu(x, slope, out), exact.leaky_relu(x, slope, out))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_relu_at_random(kind):
    x = any_bits(np.random.default_rng(3), (5000,), np.dtype(kind))
    for out in ("same", "float16", "float32"):
        same(relu(x, out), exact.relu(x, out))
        for slope in (0.01, 1e-300, 1e300):
            same(leaky_relu(x, slope, out), exact.leaky_relu(x, slope, out))
    assert relu(np.float32(-1)).value.shape == ()
    assert leaky_relu(np.zeros((2, 0))).value.shape == (2, 0)


def test_bad_input():
    x = np.zeros((1, 1, 2, 2))
    with pytest.raises(ShapeError, match="4 axes"):
        avg_pool2d(x[0], 2)
    with pytest.raises(ShapeError, match="must be smaller than `kernel`"):
        max_pool2d(x, 2, padding=2)
    with pytest.raises(ShapeError, match="4 axes"):
        global_avg_pool(x[:, :, :0])
    with pytest.raises(ArgumentError, match="`slope`"):
        leaky_relu(x, np.nan)
    for op in (lambda v: avg_pool2d(v, 2), lambda v: max_pool2d(v, 2), global_avg_pool, relu, leaky_relu):
        with pytest.raises(DTypeError, match="`x` has dtype"):
            op(x.astype(int))


def test_a_window_without_its_last_element_is_caught(monkeypatch):
    enclose = kernels.arithmetic.enclose_sums
    monkeypatch.setattr(kernels.arithmetic, "enclose_sums", lambda rows, *rest: enclose(rows[:, :-1], *rest))
    x = np.arange(36.0).reshape(1, 1, 6, 6)
    with pytest.raises(AssertionError):
        same(avg_pool2d(x, 3), exact.avg_pool2d(x, 3))
