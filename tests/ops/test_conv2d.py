"""Convolution against the exact oracle, loop twins, bilinear identities, and PyTorch."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from npreparam import ShapeError, Window, exact, ops
from npreparam.tape import check_grads
from tests import naive
from tests.tolerances import assert_same_bits, assert_within, dot_bound

# size, kernel, stride, padding, dilation of one axis
AXES = list(itertools.product((1, 2, 4, 5), (1, 2, 3), (1, 2, 3), ((0, 0), (1, 1), (0, 2), (2, 1)), (1, 2)))


def integers(rng, shape, dtype):
    return rng.integers(-3, 4, shape).astype(dtype)


def check_three(x, w, b, gy_of, geometry, compare):
    """Forward and both gradients against loop twins through `compare(actual, expected)`; geometry with padding as four sides."""
    y = ops.conv2d(x, w, b, *geometry)
    compare(y, naive.conv2d(x, w, b, *geometry))
    gy = gy_of(y.shape)
    compare(ops.conv2d_input_grad(gy, w, x.shape, *geometry), naive.conv2d_input_grad(gy, w, x.shape, *geometry))
    compare(ops.conv2d_weight_grad(gy, x, w.shape, *geometry), naive.conv2d_weight_grad(gy, x, w.shape, *geometry))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_small_axis_geometry_equals_the_definition(dtype):
    """Exhaustive along one axis (the other one a fixed mixed case), on integers, where every order is exact: ==."""
    rng = np.random.default_rng(0)
    cases = 0
    for size, kernel, stride, padding, dilation in AXES:
        if not naive.output_length(size, kernel, stride, *padding, dilation):
            continue
        for flip in (False, True):
            sides = [(size, kernel, stride, padding, dilation), (3, 2, 2, (1, 0), 1)][:: -1 if flip else 1]
            (h, kh, sh, ph, dh), (wd, kw, sw, pw, dw) = sides
            x, w, b = integers(rng, (2, 2, h, wd), dtype), integers(rng, (3, 2, kh, kw), dtype), integers(rng, (3,), dtype)
            check_three(x, w, b, lambda shape: integers(rng, shape, dtype), ((sh, sw), (ph, pw), (dh, dw), 1), assert_equal)
            cases += 1
    assert cases > 400


def assert_equal(actual, expected):
    assert actual.shape == expected.shape
    assert np.array_equal(actual, expected, equal_nan=True)


@pytest.mark.interpreted
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("channels", "outputs", "groups"), [(1, 1, 1), (2, 2, 2), (2, 4, 2), (6, 3, 3), (4, 8, 4)])
def test_small_geometries_equal_exact(channels, outputs, groups, dtype):
    """Against the exact storey with ==, groups and depthwise included."""
    rng = np.random.default_rng(1)
    geometry = ((2, 1), ((1, 0), (0, 1)), (1, 2), groups)
    x, w, b = integers(rng, (1, channels, 4, 4), dtype), integers(rng, (outputs, channels // groups, 3, 2), dtype), integers(rng, (outputs,), dtype)
    y = ops.conv2d(x, w, b, *geometry)
    assert_equal(y, exact.conv2d(x, w, b, *geometry))
    gy = integers(rng, y.shape, x.dtype)
    assert_equal(ops.conv2d_input_grad(gy, w, x.shape, *geometry), exact.conv2d_input_grad(gy, w, x.shape, *geometry))
    assert_equal(ops.conv2d_weight_grad(gy, x, w.shape, *geometry), exact.conv2d_weight_grad(gy, x, w.shape, *geometry))


@st.composite
def geometries(draw, largest=12):
    """(x shape, w shape, (stride, padding, dilation, groups)) with at least one output: output sizes are drawn, input sizes follow."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inputs, outputs, n = draw(st.integers(1, 5)), draw(st.integers(1, 9)), draw(st.integers(1, 3))
    axes = []
    for _ in range(2):
        kernel, stride, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
        before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        out, rest = draw(st.integers(1, largest)), draw(st.integers(0, stride - 1))
        size = max(1, (out - 1) * stride + dilation * (kernel - 1) + 1 + rest - before - after)
        axes.append((size, kernel, stride, (before, after), dilation))
    (h, kh, sh, ph, dh), (w, kw, sw, pw, dw) = axes
    return (n, inputs * groups, h, w), (outputs * groups, inputs, kh, kw), ((sh, sw), (ph, pw), (dh, dw), groups)


@given(geometries(), st.integers(0, 2**32), st.sampled_from([np.float32, np.float64]))
@example(((1, 2, 1, 17), (1, 2, 1, 1), ((1, 2), ((0, 0), (1, 1)), (1, 1), 1)), 0, np.float64)  # a phase without taps longer than the others
@example(((1, 1, 2, 2), (1, 1, 3, 3), ((2, 2), ((1, 1), (1, 1)), (1, 1), 1)), 0, np.float32)  # weight gradient whose last row reads padding only
@example(((1, 1, 1, 3), (1, 1, 1, 2), ((1, 1), ((0, 0), (0, 0)), (1, 2), 1)), 0, np.float64)  # dilation as wide as the input
@example(((1, 1, 1, 4), (1, 1, 1, 2), ((1, 1), ((0, 0), (0, 0)), (1, 1), 1)), 0, np.float64)  # a flipped kernel would show
def test_random_data_within_the_bound_of_the_definition(case, seed, dtype):
    x_shape, w_shape, geometry = case
    rng = np.random.default_rng(seed)
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape, w_shape[:1]))
    wide = [v.astype(np.float64) for v in (x, w, b)]
    y = ops.conv2d(x, w, b, *geometry)
    gy = rng.standard_normal(y.shape).astype(dtype)
    wide_gy = gy.astype(np.float64)
    pairs = [(y, vectorized(*wide, geometry), vectorized(*map(np.abs, wide), geometry), w[0].size + 1),
             (ops.conv2d_input_grad(gy, w, x_shape, *geometry), *adjoints(wide_gy, wide[0], wide[1], geometry, 0), w.size // w_shape[1]),
             (ops.conv2d_weight_grad(gy, x, w_shape, *geometry), *adjoints(wide_gy, wide[0], wide[1], geometry, 1), gy[:, 0].size)]
    for got, want, magnitude, terms in pairs:
        # the float64 reference is itself rounded: twice the bound where the dtype is float64, and more than enough below
        assert_within(got, want, dot_bound(terms, magnitude, dtype) + dot_bound(terms, magnitude, np.float64))


def slices(x_shape, w_shape, geometry):
    """Tap by tap, the slice of padded x that meets the output."""
    (sh, sw), padding, (dh, dw), _ = geometry
    ho, wo = naive.conv_output_shape(x_shape, w_shape, (sh, sw), padding, (dh, dw))[2:]
    for a, e in itertools.product(range(w_shape[2]), range(w_shape[3])):
        yield a, e, (slice(a * dh, a * dh + (ho - 1) * sh + 1, sh), slice(e * dw, e * dw + (wo - 1) * sw + 1, sw))


def vectorized(x, w, b, geometry):
    """The convolution tap by tap in float64: an independent route for arrays too large for loops."""
    groups = geometry[3]
    padded = np.pad(x, ((0, 0), (0, 0), *geometry[1]))
    split, weights = padded.reshape(len(x), groups, -1, *padded.shape[2:]), w.reshape(groups, -1, *w.shape[1:])
    y = sum(np.einsum("ngihw,goi->ngohw", split[(..., *cut)], weights[..., a, e]) for a, e, cut in slices(x.shape, w.shape, geometry))
    return y.reshape(len(x), len(w), *y.shape[3:]) + b.reshape(1, -1, 1, 1)


def adjoints(gy, x, w, geometry, which):
    """(gradient, the same of absolute values) with respect to x or w, tap by tap in float64."""
    results = []
    for g, v, k in ((gy, x, w), (np.abs(gy), np.abs(x), np.abs(w))):
        groups = geometry[3]
        padded = np.pad(v, ((0, 0), (0, 0), *geometry[1]))
        split, weights = padded.reshape(len(v), groups, -1, *padded.shape[2:]), k.reshape(groups, -1, *k.shape[1:])
        cotangent = g.reshape(len(v), groups, -1, *g.shape[2:])
        gx, gw = np.zeros_like(split), np.zeros_like(weights)
        for a, e, cut in slices(v.shape, k.shape, geometry):
            gx[(..., *cut)] += np.einsum("ngohw,goi->ngihw", cotangent, weights[..., a, e])
            gw[..., a, e] = np.einsum("ngohw,ngihw->goi", cotangent, split[(..., *cut)])
        (top, _), (left, _) = geometry[1]
        gx = gx.reshape(padded.shape)[:, :, top : top + v.shape[2], left : left + v.shape[3]]
        results.append((gx, gw.reshape(k.shape))[which])
    return results


@given(geometries(), st.integers(0, 2**32), st.sampled_from([np.float32, np.float64]))
def test_bilinear_identities_hold_exactly_on_integers(case, seed, dtype):
    """<gy, conv(x, w)> = <input_grad(gy, w), x> = <weight_grad(gy, x), w>: no finite differences needed."""
    x_shape, w_shape, geometry = case
    rng = np.random.default_rng(seed)
    x, w = integers(rng, x_shape, dtype), integers(rng, w_shape, dtype)
    y = ops.conv2d(x, w, None, *geometry)
    gy = integers(rng, y.shape, x.dtype)
    inner = [np.sum(u.astype(np.int64) * v.astype(np.int64)) for u, v in
             ((gy, y), (ops.conv2d_input_grad(gy, w, x_shape, *geometry), x), (ops.conv2d_weight_grad(gy, x, w_shape, *geometry), w))]
    assert inner[0] == inner[1] == inner[2]


@pytest.mark.parametrize("kernel", [(31, 31), (1, 31), (17, 3)])
@pytest.mark.parametrize("groups", [1, 4])
def test_large_and_oblong_kernels(kernel, groups):
    rng = np.random.default_rng(9)
    x_shape, w_shape = (1, 4, 33, 35), (4, 4 // groups, *kernel)
    geometry = ((1, 1), ((kernel[0] // 2,) * 2, (kernel[1] // 2,) * 2), (1, 1), groups)
    x, w = integers(rng, x_shape, np.float32), integers(rng, w_shape, np.float32)
    assert_equal(ops.conv2d(x, w, None, *geometry), vectorized(x.astype(np.float64), w.astype(np.float64), np.zeros(4), geometry))


@pytest.mark.parametrize("name", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_named_padding_is_the_window_s(name):
    rng = np.random.default_rng(10)
    x, w = integers(rng, (1, 2, 7, 6), np.float64), integers(rng, (3, 2, 3, 4), np.float64)
    window = Window.of((3, 4), 2, name, size=(7, 6))
    y = ops.conv2d(x, w, None, 2, name)
    assert_equal(y, naive.conv2d(x, w, None, (2, 2), window.padding, (1, 1), 1))
    assert_equal(ops.conv2d_input_grad(y, w, x.shape, 2, name), naive.conv2d_input_grad(y, w, x.shape, (2, 2), window.padding, (1, 1), 1))


def test_gradients_by_differences():
    rng = np.random.default_rng(11)
    x, w, b = rng.standard_normal((2, 4, 5, 6)), rng.standard_normal((6, 2, 3, 2)), rng.standard_normal(6)
    check_grads(lambda *a: ops.conv2d(*a, (2, 1), ((1, 0), (0, 1)), (1, 2), 2), [x, w, b])
    gy = rng.standard_normal((2, 6, 5, 5))
    check_grads(lambda gy, w: ops.conv2d_input_grad(gy, w, (2, 4, 5, 6), 1, 1, 1, 2), [rng.standard_normal((2, 6, 5, 7)), w])
    check_grads(lambda gy, x: ops.conv2d_weight_grad(gy, x, (6, 2, 3, 4), 1, 1, 1, 2), [gy, x])
    check_grads(lambda *a: ops.conv_transpose2d(*a, 2, 1, 1), [x, rng.standard_normal((4, 3, 3, 2)), b[:3]])


@given(geometries(), st.integers(0, 2**32))
def test_transposed_convolution_is_the_adjoint(case, seed):
    """<conv_transpose2d(y, w), x> = <y, conv2d(x, w)> on integers, for every output padding."""
    (n, channels, *_), w_shape, (stride, padding, dilation, groups) = case
    rng = np.random.default_rng(seed)
    y, w = integers(rng, (n, w_shape[0], 3, 2), np.float64), integers(rng, w_shape, np.float64)
    more = tuple(int(rng.integers(0, s)) for s in stride)
    size = [(m - 1) * s - sum(p) + d * (k - 1) + 1 + e for m, s, p, d, k, e in zip((3, 2), stride, padding, dilation, w_shape[2:], more, strict=True)]
    if min(size) < 1:
        with pytest.raises(ShapeError, match="would be empty"):
            ops.conv_transpose2d(y, w, None, stride, padding, more, dilation, groups)
        return
    x = ops.conv_transpose2d(y, w, None, stride, padding, more, dilation, groups)
    assert x.shape == (n, channels, *size)
    probe = integers(rng, x.shape, np.float64)
    assert np.sum(x * probe) == np.sum(y * ops.conv2d(probe, w, None, stride, padding, dilation, groups))


@given(geometries(), st.integers(0, 2**32), st.sampled_from([np.float32, np.float64]))
def test_pytorch_agrees(case, seed, dtype):
    torch = pytest.importorskip("torch")
    x_shape, w_shape, (stride, padding, dilation, groups) = case
    rng = np.random.default_rng(seed)
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape, w_shape[:1]))
    tx, tw, tb = (torch.from_numpy(v).requires_grad_() for v in (x, w, b))
    (top, bottom), (left, right) = padding
    ty = torch.nn.functional.conv2d(torch.nn.functional.pad(tx, (left, right, top, bottom)), tw, tb, stride, 0, dilation, groups)
    magnitude = vectorized(*(np.abs(v.astype(np.float64)) for v in (x, w, b)), (stride, padding, dilation, groups))
    assert_within(ops.conv2d(x, w, b, stride, padding, dilation, groups), ty.detach().numpy(), 2 * dot_bound(w[0].size + 1, magnitude, dtype))
    gy = rng.standard_normal(ty.shape).astype(dtype)
    ty.backward(torch.from_numpy(gy))
    wide = [v.astype(np.float64) for v in (gy, x, w)]
    for got, want, which, terms in (
            (ops.conv2d_input_grad(gy, w, x_shape, stride, padding, dilation, groups), tx.grad.numpy(), 0, w.size // w_shape[1]),
            (ops.conv2d_weight_grad(gy, x, w_shape, stride, padding, dilation, groups), tw.grad.numpy(), 1, gy[:, 0].size)):
        magnitude = adjoints(*wide, (stride, padding, dilation, groups), which)[1]
        assert_within(got, want, 2 * dot_bound(terms, magnitude, dtype))


def test_an_empty_batch_gives_empty_output_and_zero_gradients():
    x, w = np.empty((0, 3, 5, 5)), np.ones((4, 3, 3, 3))
    y = ops.conv2d(x, w, np.ones(4), padding=1)
    assert y.shape == (0, 4, 5, 5)
    assert ops.conv2d_input_grad(y, w, x.shape, padding=1).shape == x.shape
    assert_same_bits(ops.conv2d_weight_grad(y, x, w.shape, padding=1), np.zeros(w.shape))


@pytest.mark.parametrize("fault", ["flip", "shift", "drop", "ulp"])
def test_planted_faults_are_caught(fault):
    """The comparison with the loop twin must notice a flipped kernel, a shifted window, a dropped tap, and one ulp on integers."""
    rng = np.random.default_rng(12)
    x, w = integers(rng, (1, 2, 5, 5), np.float64), integers(rng, (2, 2, 3, 3), np.float64)
    w[0, 0, 0, 1], w[0, 0, 2, 1] = 1, 2
    geometry = ((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    broken = {"flip": lambda: ops.conv2d(x, w[:, :, ::-1, ::-1], None, *geometry),
              "shift": lambda: ops.conv2d(x, w, None, 1, ((0, 2), (1, 1))),
              "drop": lambda: ops.conv2d(x, np.where(np.arange(3) < 2, w, 0), None, *geometry),
              "ulp": lambda: np.nextafter(ops.conv2d(x, w, None, *geometry), np.inf)}[fault]()
    with pytest.raises(AssertionError):
        assert_equal(broken, naive.conv2d(x, w, None, *geometry))
