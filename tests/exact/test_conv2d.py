import itertools
from fractions import Fraction

import numpy as np
import pytest

from npreparam import ArgumentError, DTypeError, ShapeError, exact
from tests import naive


def fractions(rng, shape):
    values = np.empty(shape, object)
    pairs = zip(rng.integers(-9, 10, values.size).tolist(), rng.integers(1, 8, values.size).tolist(), strict=True)
    values.ravel()[:] = [Fraction(*pair) for pair in pairs]
    return values


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), list(itertools.product(
    ((1, 1), (2, 3)), (((0, 0), (0, 0)), ((1, 0), (2, 1))), ((1, 1), (2, 1)), (1, 2))))
def test_the_definition_over_fractions(stride, padding, dilation, groups):
    """Equal to the loop twin, as identities of rational numbers; and the three are adjoint."""
    rng = np.random.default_rng(0)
    x, w, b = fractions(rng, (1, 2 * groups, 4, 4)), fractions(rng, (2 * groups, 2, 2, 2)), fractions(rng, (2 * groups,))
    geometry = (stride, padding, dilation, groups)
    y = exact.conv2d(x, w, b, *geometry, out_dtype=None)
    assert (y == naive.conv2d(x, w, b, *geometry)).all()
    gy = fractions(rng, y.shape)
    gx = exact.conv2d_input_grad(gy, w, x.shape, *geometry, out_dtype=None)
    gw = exact.conv2d_weight_grad(gy, x, w.shape, *geometry, out_dtype=None)
    assert (gx == naive.conv2d_input_grad(gy, w, x.shape, *geometry)).all()
    assert (gw == naive.conv2d_weight_grad(gy, x, w.shape, *geometry)).all()
    linear_part = y - b.reshape(1, -1, 1, 1)
    assert np.sum(gy * linear_part) == np.sum(gx * x) == np.sum(gw * w)


def one_axis(axis, size, other):
    """A pair that is `size` on one axis and `other` on the other."""
    return (size, other) if axis == 0 else (other, size)


@pytest.mark.parametrize("axis", [0, 1])
def test_every_small_geometry_of_one_axis_exhaustive(axis):
    """Sizes 1-4, kernels 1-3, strides 1-3, padding 0-2 on either side, dilation 1-2: the twin, or the error where no window fits."""
    x, w, gy = (np.arange(1, 13) * step % 19 - 9 for step in (5, 7, 3))
    fitting = 0
    every = itertools.product(range(1, 5), range(1, 4), range(1, 4), range(3), range(3), (1, 2))
    for size, kernel, stride, before, after, dilation in every:
        image = x[:size].reshape(1, 1, *one_axis(axis, size, 1))
        taps = w[:kernel].reshape(1, 1, *one_axis(axis, kernel, 1))
        geometry = (one_axis(axis, stride, 1), one_axis(axis, (before, after), (0, 0)), one_axis(axis, dilation, 1), 1)
        expected = naive.conv2d(image, taps, None, *geometry)
        if not expected.size:
            with pytest.raises(ShapeError, match="no window fits"):
                exact.conv2d(image, taps, None, *geometry, out_dtype=None)
            continue
        fitting += 1
        assert (exact.conv2d(image, taps, None, *geometry, out_dtype=None) == expected).all()
        g = gy[:expected.size].reshape(expected.shape)
        assert (exact.conv2d_input_grad(g, taps, image.shape, *geometry, out_dtype=None)
                == naive.conv2d_input_grad(g, taps, image.shape, *geometry)).all()
        assert (exact.conv2d_weight_grad(g, image, taps.shape, *geometry, out_dtype=None)
                == naive.conv2d_weight_grad(g, image, taps.shape, *geometry)).all()
    assert fitting > 500


def test_one_rounding_where_a_chain_of_float32_needs_several():
    """2^24 + 1 - 2^24: every order of float32 additions that begins with the large pair apart loses the 1."""
    x = np.float32([[[[2**24, 1, -(2**24)]]]])
    assert exact.conv2d(x, np.ones((1, 1, 1, 3), np.float32)).item() == 1


def test_out_dtype_is_rounded_to_once():
    x = np.array([[[[1.0, 2.0**-25]]]])
    w = np.ones((1, 1, 1, 2))
    assert exact.conv2d(x, w, out_dtype=np.float32).item() == 1
    assert exact.conv2d(x, w).item() == 1 + 2.0**-25
    pytest.importorskip("ml_dtypes")
    assert str(exact.conv2d(x, w, out_dtype="bfloat16").dtype) == "bfloat16"


def test_the_first_argument_gives_the_default_dtype():
    one, wide = np.ones((1, 1, 1, 1), np.float32), np.ones((1, 1, 1, 1))
    assert exact.conv2d(one, wide).dtype == exact.conv2d_input_grad(one, wide, one.shape).dtype == np.float32
    assert exact.conv2d_weight_grad(one, wide, one.shape).dtype == np.float32
    assert exact.linear(one[0, 0], wide[0, 0]).dtype == np.float32
    with pytest.raises(DTypeError, match=r"`out_dtype` \(='int64'\), by default the dtype of the first argument"):
        exact.conv2d(one.astype(np.int64), one)


@pytest.mark.parametrize("inputs", [1, 0])
def test_unrounded_results_are_fractions_even_of_ints_and_empty_sums(inputs):
    """An int among them would turn into a float when divided."""
    x = np.ones((1, inputs), int).astype(object)
    results = exact.linear(x, x, out_dtype=None), exact.conv2d(x[..., None, None], x[..., None, None], out_dtype=None)
    assert [type(y.item()) for y in results] == [Fraction, Fraction]


def test_linear():
    rng = np.random.default_rng(1)
    x, w, b = fractions(rng, (3, 4)), fractions(rng, (2, 4)), fractions(rng, (2,))
    assert (exact.linear(x, w, b, out_dtype=None) == naive.matmul(x, w.T) + b).all()


def test_foreign_byte_order_and_empty_batches():
    x = np.array([[[[1.5, 2.5]]]])
    assert exact.conv2d(x.astype(">f4"), np.ones((1, 1, 1, 1))).tolist() == x.tolist()
    assert exact.conv2d(x[:0], np.ones((1, 1, 1, 2))).shape == (0, 1, 1, 1)
    assert (exact.conv2d_weight_grad(x[:0], x[:0], (1, 1, 1, 1)) == 0).all()


ONE = np.ones((1, 1, 2, 2))


@pytest.mark.parametrize("call", [
    lambda: exact.conv2d(ONE, np.ones((2, 1, 1, 1)), np.ones(1)),
    lambda: exact.conv2d_input_grad(ONE, np.ones((1, 1, 1, 1)), (1, 1, 1, 1)),
    lambda: exact.conv2d_weight_grad(np.ones((1, 1, 1, 1)), ONE, (1, 1, 1, 1)),
    lambda: exact.linear(np.ones((1, 1)), np.ones((2, 1)), np.ones(1)),
])
def test_shapes_that_would_broadcast_or_be_read_in_part_are_refused(call):
    with pytest.raises(ShapeError, match=r"`(b|gy)` has shape .*, but must have shape"):
        call()


def test_bad_shapes():
    with pytest.raises(ShapeError, match=r"`in_channels` \(=3\) must be axis 1 of `w` \(=2\)"):
        exact.conv2d(np.zeros((1, 3, 2, 2)), np.zeros((1, 2, 1, 1)))
    with pytest.raises(ShapeError, match=r"`groups` \(=2\), and `groups` must divide `out_channels` \(=3\)"):
        exact.conv2d(np.zeros((1, 2, 2, 2)), np.zeros((3, 1, 1, 1)), groups=2)
    with pytest.raises(ShapeError, match="both must have 4 axes"):
        exact.conv2d(np.zeros((3, 2, 2)), np.zeros((1, 2, 1, 1)))
    with pytest.raises(ShapeError, match="batch, inputs"):
        exact.linear(np.zeros((1, 3)), np.zeros((1, 2)))


@pytest.mark.parametrize(("shape", "error", "message"), [
    (3, ShapeError, r"`{}` \(=3\) must be a sequence of 4 sizes"),
    ((1, 1, 2), ShapeError, r"`{}` \(=\(1, 1, 2\)\) must be a sequence of 4 sizes"),
    ((1, 1, 2.0, 2), ArgumentError, r"`{}` \(=2.0\) must be an integer"),
    ((1, 1, -2, 2), ArgumentError, r"`{}` \(=-2\) must not be negative"),
])
def test_bad_shapes_as_arguments(shape, error, message):
    with pytest.raises(error, match=message.format("input_shape")):
        exact.conv2d_input_grad(ONE, np.ones((1, 1, 1, 1)), shape)
    with pytest.raises(error, match=message.format("weight_shape")):
        exact.conv2d_weight_grad(ONE, ONE, shape)


@pytest.mark.parametrize(("stride", "padding", "more", "dilation", "groups"), list(itertools.product(
    ((1, 1), (2, 3)), (((0, 0), (0, 0)), ((1, 0), (2, 1))), ((0, 0), (0, 1)), ((1, 1), (2, 1)), (1, 2))))
def test_transposed_over_fractions(stride, padding, more, dilation, groups):
    """y = b + the adjoint of a convolution, of the size that the docstring gives."""
    rng = np.random.default_rng(2)
    x, w, b = fractions(rng, (2, 2 * groups, 3, 2)), fractions(rng, (2 * groups, 2, 2, 3)), fractions(rng, (2 * groups,))
    if more[1] >= stride[1]:
        with pytest.raises(ArgumentError, match=r"`output_padding` \(=\(0, 1\)\) must be smaller than `stride`"):
            exact.conv_transpose2d(x, w, b, stride, padding, more, dilation, groups, out_dtype=None)
        return
    y = exact.conv_transpose2d(x, w, b, stride, padding, more, dilation, groups, out_dtype=None)
    size = tuple((n - 1) * s - sum(p) + d * (k - 1) + 1 + extra
                 for n, s, p, d, k, extra in zip((3, 2), stride, padding, dilation, (2, 3), more, strict=True))
    assert y.shape == (2, 2 * groups, *size)
    expected = naive.conv2d_input_grad(x, w, y.shape, stride, padding, dilation, groups) + b.reshape(1, -1, 1, 1)
    assert (y == expected).all()
    assert (y != expected + Fraction(1, 2**200)).all()  # == on Fractions sees the smallest difference


def test_the_bias_of_a_transposed_convolution_takes_part_in_the_one_rounding():
    """1 + 2^-24 is a tie, which the product alone would round to 1; with the bias 2^-60 it is above."""
    x, w, b = np.float32([[[[1 + 2**-12]]]]), np.float32([[[[1 - 2**-12 + 2**-23]]]]), np.float32([2.0**-60])
    exactly = Fraction(float(x.item())) * Fraction(float(w.item())) + Fraction(1, 2**60)
    assert exact.conv_transpose2d(x, w, b, out_dtype=None).item() == exactly
    assert exact.conv_transpose2d(x, w, b).item() == float(exact.round_array(np.array([exactly], object), np.float32)[0])


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: exact.conv_transpose2d(ONE, np.ones((1, 1, 2, 2)), padding="VALID"), ArgumentError, r"`padding` \(='VALID'\) of a transposed"),
    (lambda: exact.conv_transpose2d(ONE, np.ones((2, 1, 2, 2))), ShapeError, r"`in_channels` \(=1, axis 1 of `x`\) must be axis 0 of `w` \(=2\)"),
    (lambda: exact.conv_transpose2d(ONE, np.ones((1, 1, 1, 1)), padding=1), ShapeError, r"the output would be empty: .* \(0, 0\)"),
    (lambda: exact.conv_transpose2d(ONE, np.ones((1, 2, 1, 1)), np.ones(1)), ShapeError, r"`b` has shape \(1,\), but must have shape \(2,\)"),
    (lambda: exact.conv_transpose2d(ONE[0], np.ones((1, 2, 1, 1))), ShapeError, "both must have 4 axes"),
    (lambda: exact.matmul(np.ones((1, 2)), np.ones((1, 2))), ShapeError, r"`a` of shape \(1, 2\) and `b` of shape \(1, 2\)"),
])
def test_bad_transposed_convolutions_and_products(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_matmul_and_the_integers_behind_it():
    """Floats over 600 powers of two: the sum over a common unit equals the sum of Fractions."""
    rng = np.random.default_rng(3)
    a, b = (np.ldexp(rng.standard_normal(shape), rng.integers(-300, 300, shape)) for shape in ((2, 5), (5, 3)))
    assert (exact.matmul(a, b, out_dtype=None) == naive.matmul(exact.as_fractions(a, "a"), exact.as_fractions(b, "b"))).all()
    assert exact.matmul(a[:, :0], b[:0], out_dtype=None).tolist() == [[Fraction(0)] * 3] * 2
