"""Certified sums of products against `exact`, bit by bit: random, ill-conditioned, lattice, subnormal, huge, special values, all formats."""

import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, DTypeError, ShapeError, certified, exact, kernels, set_num_threads
from npreparam.certified import _products
from tests.kernels.test_conv2d import _restore_threads, layouts  # noqa: F401
from tests.tolerances import assert_same_bits

FORMATS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
GEOMETRY = ((2, 1), ((1, 0), (1, 2)), (1, 1), 2)


def normal(rng, shape):
    return rng.standard_normal(shape)


def lattice(rng, shape):
    return rng.integers(-3, 4, shape) / 4.0


def wide(rng, shape):
    return rng.standard_normal(shape) * 2.0 ** rng.integers(-40, 41, shape)


def cancelling(rng, shape):
    """Nearly opposite numbers: sums far smaller than their terms."""
    return np.where(rng.random(shape) < 0.5, 1, -1) * (1 + 2.0**-20 * rng.integers(0, 3, shape))


def tiny(rng, shape):
    return rng.standard_normal(shape) * 2.0**-74


def huge(rng, shape):
    return rng.standard_normal(shape) * 2.0**63


def extreme(rng, shape):
    return rng.standard_normal(shape) * 2.0 ** rng.integers(-1000, 1000, shape)


def special(rng, shape):
    return np.where(rng.random(shape) < 0.05, rng.choice([np.inf, -np.inf, np.nan, -0.0, 0.0], shape), rng.standard_normal(shape))


KINDS = [normal, lattice, wide, cancelling, tiny, huge, extreme, special]


def draw(kind, rng, shape, dtype):
    with np.errstate(over="ignore"):
        return kind(rng, shape).astype(dtype)


def assert_certified(found, expected):
    """The very same bits, and a count that can be."""
    assert found.value.dtype == expected.dtype
    assert found.value.shape == expected.shape
    assert 0 <= found.repaired <= expected.size
    wrong = found.value.view(f"u{expected.itemsize}") != expected.view(f"u{expected.itemsize}")
    assert not wrong.any(), f"{int(wrong.sum())} of {wrong.size} wrong, the first {found.value[wrong][0]!r} instead of {expected[wrong][0]!r}"


@pytest.mark.parametrize("out", FORMATS)
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_element_is_the_correctly_rounded_one(kind, dtype, out):
    rng = np.random.default_rng(0)
    x, w, b = (draw(kind, rng, shape, dtype) for shape in ((2, 4, 5, 6), (6, 2, 3, 2), (6,)))
    found = certified.conv2d(x, w, b, *GEOMETRY, out_dtype=out)
    assert_certified(found, exact.conv2d(x, w, b, *GEOMETRY, out_dtype=out))
    gy = draw(kind, rng, found.value.shape, dtype)
    assert_certified(certified.conv2d_input_grad(gy, w, x.shape, *GEOMETRY, out_dtype=out),
                     exact.conv2d_input_grad(gy, w, x.shape, *GEOMETRY, out_dtype=out))
    assert_certified(certified.conv2d_weight_grad(gy, x, w.shape, *GEOMETRY, out_dtype=out),
                     exact.conv2d_weight_grad(gy, x, w.shape, *GEOMETRY, out_dtype=out))
    turned = (gy, w, draw(kind, rng, (4,), dtype), *GEOMETRY[:2], (1, 0), *GEOMETRY[2:])
    assert_certified(certified.conv_transpose2d(*turned, out_dtype=out), exact.conv_transpose2d(*turned, out_dtype=out))
    rows, weights = x.reshape(8, 30), w.reshape(3, 24)[:, :30]
    assert_certified(certified.linear(rows[:, :24], weights, b[:3], out_dtype=out), exact.linear(rows[:, :24], weights, b[:3], out_dtype=out))
    assert_certified(certified.matmul(rows[:, :24], weights.T, out_dtype=out), exact.matmul(rows[:, :24], weights.T, out_dtype=out))


@st.composite
def problems(draw_):
    groups, ci, co = draw_(st.sampled_from([1, 1, 2, 3])), draw_(st.integers(1, 3)), draw_(st.integers(1, 3))
    kernel = draw_(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride = draw_(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = tuple((draw_(st.integers(0, 2)), draw_(st.integers(0, 2))) for _ in range(2))
    dilation = draw_(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    out = draw_(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    size = [max(1, (o - 1) * s + d * (k - 1) + 1 - sum(p)) for o, s, d, k, p in zip(out, stride, dilation, kernel, padding, strict=True)]
    return (draw_(st.integers(1, 2)), ci * groups, *size), (co * groups, ci, *kernel), (stride, padding, dilation, groups)


@given(problems(), st.integers(0, 2**32), st.sampled_from(KINDS), st.sampled_from([np.float32, np.float64]))
def test_every_geometry(problem, seed, kind, dtype):
    (x_shape, w_shape, geometry), rng = problem, np.random.default_rng(seed)
    x, w = draw(kind, rng, x_shape, dtype), draw(kind, rng, w_shape, dtype)
    found = certified.conv2d(x, w, None, *geometry)
    assert_certified(found, exact.conv2d(x, w, None, *geometry))
    gy = draw(kind, rng, found.value.shape, dtype)
    assert_certified(certified.conv2d_input_grad(gy, w, x_shape, *geometry), exact.conv2d_input_grad(gy, w, x_shape, *geometry))
    assert_certified(certified.conv2d_weight_grad(gy, x, w_shape, *geometry), exact.conv2d_weight_grad(gy, x, w_shape, *geometry))


def mirrored(rng, terms, dtype):
    """x (40, K) and w (3, K): numbers and their mirror image with opposite signs; what is left of each sum is one tiny term."""
    x, w = draw(wide, rng, (40, terms), dtype), draw(wide, rng, (3, terms), dtype)
    return (np.concatenate([x, -x[:, ::-1], draw(normal, rng, (40, 1), dtype) * dtype(2.0**-60)], axis=1),
            np.concatenate([w, w[:, ::-1], np.ones((3, 1), dtype)], axis=1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_terms_of_a_condition_number_up_to_2_to_the_100(dtype):
    x, w = mirrored(np.random.default_rng(1), 500, dtype)
    found = certified.linear(x, w)
    assert_certified(found, exact.linear(x, w))
    assert found.repaired == found.value.size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_batch_layout_and_read_only_arrays_change_nothing(dtype):
    rng = np.random.default_rng(2)
    x, w = draw(normal, rng, (3, 8, 30, 31), dtype), draw(normal, rng, (9, 8, 3, 3), dtype)
    set_num_threads(1)
    y = certified.conv2d(x, w).value
    set_num_threads(2)
    assert_same_bits(certified.conv2d(x, w).value, y)
    assert_same_bits(certified.conv2d(x[1:2], w).value, y[1:2])
    for other_x, other_w in zip(layouts(x), layouts(w), strict=True):
        assert_same_bits(certified.conv2d(other_x, other_w).value, y)


def test_few_elements_are_repaired_and_lattices_none():
    rng = np.random.default_rng(3)
    x, w = draw(normal, rng, (2, 32, 40, 40), np.float32), draw(normal, rng, (16, 32, 3, 3), np.float32)
    found = certified.conv2d(x, w)
    assert 0 < found.repaired < found.value.size // 1000
    steps = rng.integers(-9, 10, (8, *x.shape[1:])).astype(np.float32)
    assert certified.conv2d(steps, np.sign(w)).repaired == 0  # sums of zero, whose sign the rounding test leaves open


def test_an_empty_batch_and_an_empty_sum():
    x, w = np.zeros((0, 3, 4, 4), np.float32), np.zeros((2, 3, 3, 3), np.float32)
    assert certified.conv2d(x, w).value.shape == (0, 2, 2, 2)
    assert_same_bits(certified.conv2d_weight_grad(np.zeros((0, 2, 2, 2), np.float32), x, w.shape).value, np.zeros(w.shape, np.float32))
    assert_same_bits(certified.linear(np.zeros((2, 0)), np.zeros((1, 0)), np.array([-0.0])).value, np.zeros((2, 1)))


ONE = np.ones((1, 1, 1, 1), np.float32)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: certified.conv2d(ONE.astype(int), ONE), DTypeError, "`x` has dtype int64, but must be one of float16"),
    (lambda: certified.conv2d([[[[1.0]]]], ONE), DTypeError, r"`x` \(a list\) must be a NumPy array"),
    (lambda: certified.conv2d(ONE, ONE.astype(np.float16)), DTypeError, "`x` float32, `w` float16; convert with .astype"),
    (lambda: certified.conv2d(ONE, ONE, out_dtype="int8"), DTypeError, "must be one of"),
    (lambda: certified.conv2d(ONE, ONE, out_dtype="float8_e5m2"), DTypeError, r"`out_dtype` \(='float8_e5m2'\) must be one of float16"),
    (lambda: certified.conv2d(ONE, ONE, stride=2**61), ArgumentError, "`stride` leads to a length"),
    (lambda: certified.conv2d(ONE, np.ones((1, 2, 1, 1), np.float32)), ShapeError, r"`in_channels` \(=1"),
    (lambda: certified.linear(ONE[0, 0], np.ones((1, 2), np.float32)), ShapeError, r"`in_features` \(=1"),
    (lambda: certified.matmul(ONE[0, 0], np.ones((2, 1), np.float32)), ShapeError, "the inner lengths must agree"),
    (lambda: certified.linear(np.broadcast_to(np.float32(1), (1, 2**28 + 1)), np.broadcast_to(np.float32(1), (0, 2**28 + 1))), ArgumentError,
     r"a sum of 268435457 terms, but .* at most 2\*\*28"),
])
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()


def check_hard_cases():
    """Elements that a wrong bound or a wrong repair gets wrong: ill-conditioned sums, and a halfway point missed by 2^-60."""
    rng = np.random.default_rng(4)
    for dtype in (np.float32, np.float64):
        x, w = mirrored(rng, 100, dtype)
        assert_certified(certified.linear(x, w), exact.linear(x, w))
    for halfway, dtype in ((1 + 2.0**-11, np.float16), (1 + 2.0**-24, np.float32)):
        x, w = np.array([[halfway, 2.0**-60]]), np.ones((1, 2))
        assert_certified(certified.linear(x, w, out_dtype=dtype), exact.linear(x, w, out_dtype=dtype))


def test_hard_cases():
    check_hard_cases()


@pytest.mark.parametrize("dtype", FORMATS)
def test_images_in_parts(dtype, monkeypatch):
    """One at a time, or two: the same numbers and repairs as all at once; the memory that the parts share is used again by the next call."""
    module, rng = sys.modules["npreparam.certified.conv2d"], np.random.default_rng(7)
    x, w, b = draw(cancelling, rng, (5, 4, 6, 7), dtype), draw(cancelling, rng, (2, 2, 3, 2), dtype), draw(normal, rng, (2,), dtype)
    whole = certified.conv2d(x, w, b, *GEOMETRY)
    copy = whole.value.copy()
    for part, images in ((1, [1, 1, 1, 1, 1]), (8 * 2 * 4 * 6 * 7, [1, 2, 2])):
        monkeypatch.setattr(module, "PART", part)
        monkeypatch.setattr(module, "PASSES", 0)
        assert [s.stop - s.start for s in module._image_parts(x, w, whole.value)] == images
        found = certified.conv2d(x, w, b, *GEOMETRY)
        assert_same_bits(found.value, copy)
        assert found.repaired == whole.repaired > 0
    assert_same_bits(whole.value, copy)


def settle_without_bound(problem, shape, dtype, settle=_products.settle):
    return settle(problem._replace(across=problem.across * 2.0**-100), shape, dtype)


def settle_with_too_few_terms(problem, shape, dtype, settle=_products.settle):
    return settle(problem._replace(depth=0, terms=-2), shape, dtype)


@pytest.mark.parametrize("fault", [settle_without_bound, settle_with_too_few_terms])
def test_a_bound_that_is_too_small_is_found(fault, monkeypatch):
    monkeypatch.setattr(sys.modules["npreparam.certified.conv2d"], "settle", fault)
    with pytest.raises(AssertionError, match="wrong, the first"):
        check_hard_cases()


def test_a_repair_that_rounds_twice_is_found(monkeypatch):
    monkeypatch.setattr(kernels.accumulate, "FLOAT32", kernels.accumulate.TO_FLOAT64)
    monkeypatch.setattr(kernels.accumulate, "TO_ODD", kernels.accumulate.TO_FLOAT64)
    with pytest.raises(AssertionError, match="1 of 1 wrong"):
        check_hard_cases()


def test_one_ulp_in_one_element_is_found():
    rng = np.random.default_rng(5)
    x, w = draw(normal, rng, (2, 3, 6, 6), np.float32), draw(normal, rng, (4, 3, 3, 3), np.float32)
    found = certified.conv2d(x, w)
    found.value[1, 2, 3, 0] = np.nextafter(found.value[1, 2, 3, 0], np.float32(np.inf))
    with pytest.raises(AssertionError, match="1 of 128 wrong"):
        assert_certified(found, exact.conv2d(x, w))


def floats(*shape, value=1.0, dtype=np.float32):
    return np.full(shape, value, dtype)


def one_by_one(*geometry):
    return lambda door: door.conv2d(floats(1, 1, 1, 1), floats(1, 1, 1, 1), None, *geometry)


@pytest.mark.parametrize("call", [
    lambda door: door.conv2d_weight_grad(floats(1, 1, 2, 3, value=np.nan), floats(1, 1, 0, 3), (1, 1, 1, 3), 1, ((1, 1), (1, 1))),
    lambda door: door.conv2d_input_grad(floats(1, 0, 2, 2), floats(0, 2, 2, 2), (1, 2, 3, 3)),
    lambda door: door.conv2d_input_grad(floats(1, 2, 2, 2), floats(2, 0, 2, 2), (1, 0, 3, 3)),
    lambda door: door.conv2d(floats(1, 0, 3, 3), floats(2, 0, 2, 2), floats(2)),
    lambda door: door.conv2d(floats(1, 2, 3, 3), floats(0, 2, 2, 2)),
    lambda door: door.conv2d_input_grad(floats(1, 1, 1, 16), floats(1, 1, 1, 1), (1, 1, 1, 16), (2**59, 1)),
    lambda door: door.conv2d_input_grad(floats(1, 1, 1, 32), floats(1, 1, 1, 1), (1, 1, 1, 32), (2**58, 1)),
    one_by_one(1, 0, 2**59), one_by_one(2**28, 2**28), one_by_one(2**59, 0),
    lambda door: door.conv2d_weight_grad(*[floats(2, 1, 1, 1, value=1.2e154, dtype=float)] * 2, (1, 1, 1, 1)),
    lambda door: door.linear(floats(1, 0, dtype=float), floats(1, 0, dtype=float), floats(1, value=1e10, dtype=float), out_dtype=np.float16),
    lambda door: door.conv2d(floats(1, 2, 1, 1, value=1e-200, dtype=float), floats(1, 2, 1, 1, value=1e-200, dtype=float), out_dtype=np.float16),
])
def test_geometries_at_the_edge_neither_crash_nor_warn(call):
    with np.errstate(all="raise"):
        assert_certified(call(certified), call(exact))
