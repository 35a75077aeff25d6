"""Bounds of convolutions: direct ones and both gradients on simulated machines, Winograd and Fourier transforms in float32."""

import dataclasses
import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, target
from hypothesis import strategies as st

from npreparam import ArgumentError, DTypeError, ShapeError, exact
from npreparam.certified.bounds import BFLOAT16_FLOAT32, FFT_FLOAT32, FLOAT16_FLOAT16, FLOAT16_FLOAT32, FLOAT32, FLOAT64, TF32
from npreparam.certified.bounds.winograd import MARGIN, transforms
from tests import naive
from tests.certified import data, simulate
from tests.certified.transforms import LAVIN, fft_conv2d, winograd
from tests.certified.verdict import float32_bounds as bounds
from tests.certified.verdict import worst_ratio

WINOGRAD = {2: bounds.WINOGRAD_F2_3, 4: bounds.WINOGRAD_F4_3, 6: bounds.WINOGRAD_F6_3}
GEOMETRIES = [((1, 1), ((1, 1), (1, 1)), (1, 1), 1), ((2, 3), ((1, 0), (2, 1)), (1, 2), 2), ((1, 2), ((0, 2), (0, 0)), (2, 1), 1)]


def image(kind, shape, rng, name="float32"):
    return data.operands(kind, shape, rng, name)[0]


def kernel(kind, shape, rng, name="float32"):
    """Weights that go with images of a kind: small where these are, ones where they stagnate."""
    return data.operands(kind, shape, rng, name)[1]


@pytest.mark.parametrize("profile", [FLOAT32, FLOAT64, TF32, BFLOAT16_FLOAT32, FLOAT16_FLOAT32, FLOAT16_FLOAT16],
                         ids=["FLOAT32", "FLOAT64", "TF32", "BFLOAT16_FLOAT32", "FLOAT16_FLOAT32", "FLOAT16_FLOAT16"])
def test_direct_convolutions_and_their_gradients(profile, record_property):
    """Geometries with padding, stride, dilation and groups; with and without a bias; the gradients' sums are those of the adjoint loops."""
    rng, reached = np.random.default_rng(0), [0.0, 0.0, 0.0]
    styles = ["sequential"] if profile is TF32 else ["shuffled", "pairwise", "blocked", "random_tree"]
    name = profile.input_rounding if profile.input_rounding != "tf32" else "float32"
    for geometry, kind in itertools.product(GEOMETRIES, ("normal", "one_sign", "subnormal", "stagnant")):
        x, w = image(kind, (2, 2, 5, 6), rng, name), kernel(kind, (2, 2 // geometry[3], 3, 2), rng, name)
        b, style = (image("normal", (2,), rng, name), None)[rng.integers(2)], styles[rng.integers(len(styles))]
        triples = list(naive.conv_terms(x.shape, w.shape, *geometry))
        gy = image(kind, naive.conv_output_shape(x.shape, w.shape, *geometry[:3]), rng, name)
        y = simulate.conv2d(x, w, profile, style, rng, b, geometry)
        gx = simulate.dot(*simulate.factors(gy, w, [(i, o, k) for o, i, k in triples], x.shape), profile, style, rng)
        gw = simulate.dot(*simulate.factors(gy, x, [(k, o, i) for o, i, k in triples], w.shape), profile, style, rng)
        ratios = (worst_ratio(y, exact.conv2d(x, w, b, *geometry, out_dtype=None), bounds.conv2d_bound(x, w, b, *geometry, profile)),
                  worst_ratio(gx, exact.conv2d_input_grad(gy, w, x.shape, *geometry, out_dtype=None),
                              bounds.conv2d_input_grad_bound(gy, w, x.shape, *geometry, profile)),
                  worst_ratio(gw, exact.conv2d_weight_grad(gy, x, w.shape, *geometry, out_dtype=None),
                              bounds.conv2d_weight_grad_bound(gy, x, w.shape, *geometry, profile)))
        reached = [max(pair) for pair in zip(reached, ratios, strict=True)]
    record_property("error/bound", reached)
    assert min(reached) > 0


def test_terms_are_counted_where_they_are():
    """The corner of a padded image has 4 of 9 taps; a bias is one term more; an output wholly in the padding is the bias, exactly."""
    one = np.ones((1, 1, 3, 3))
    plain = bounds.conv2d_bound(one, one, padding=1)[0, 0] / FLOAT32.unit
    assert np.round(plain, 3).tolist() == [[16, 36, 16], [36, 81, 36], [16, 36, 16]]
    assert np.round(bounds.conv2d_bound(one, one, np.ones(1), padding=1)[0, 0, 0] / FLOAT32.unit, 3).tolist() == [25, 49, 25]
    assert bounds.conv2d_bound(one, one[:, :, :1, :1], padding=1)[0, 0, 0].max() == 0


def test_the_matrices_are_those_of_the_identity():
    """Y = A^T [(G g G^T) * (B^T d B)] A is the convolution, over Fractions; and |A||G||B| is that of the published tables."""
    rng = np.random.default_rng(0)
    for m in WINOGRAD:
        x = rng.integers(-9, 9, (1, 1, m + 3, m + 2)).astype(object)
        w = rng.integers(-9, 9, (2, 1, 3, 3)).astype(object)
        want = exact.conv2d(x, w, out_dtype=None)
        own, table = transforms(m), LAVIN[m]
        assert all(isinstance(entry, Fraction) for matrix in own for entry in matrix.ravel())
        for tables in (own, table):
            assert (winograd(x, w, m, tables=tables, dtype=object) == want).all()
        triple, published = (np.einsum("ir,rj,rk->rijk", *(np.abs(matrix) for matrix in tables)) for tables in (own, table))
        assert (triple == published).all()
        assert all((np.abs(matrix).max(0) * MARGIN > 1).all() for matrix in (*own, *table))


def winograd_ratio(kind, m, shape, rng, judge=None, padding=1):
    """The largest error/bound of F(m, 3) in float32."""
    x, w = image(kind, shape, rng), kernel(kind, (2, shape[1], 3, 3), rng)
    with np.errstate(all="ignore"):
        got = winograd(x, w, m, padding)
    truth = exact.conv2d(x, w, padding=padding, out_dtype=None)
    return worst_ratio(got, truth, bounds.conv2d_bound(x, w, padding=padding, profile=judge or WINOGRAD[m]))


@pytest.mark.parametrize("m", WINOGRAD)
def test_winograd(m, record_property):
    rng, reached = np.random.default_rng(m), {}
    for kind in data.KINDS:
        for channels, height in ((1, 7), (4, 5)):
            reached[kind] = max(reached.get(kind, 0), winograd_ratio(kind, m, (1, channels, height, 6), rng))
    record_property("error/bound", reached)
    assert max(reached.values()) > 0


@given(st.integers(0, 2**32 - 1), st.sampled_from(data.KINDS), st.sampled_from((2, 4, 6)), st.integers(1, 3))
def test_winograd_searched(seed, kind, m, channels):
    target(winograd_ratio(kind, m, (1, channels, 4, 4), np.random.default_rng(seed), padding=0))


def test_winograd_judged_as_direct_is_caught():
    """A planted fault: what F(4, 3) honestly does is beyond the bound of a direct convolution."""
    winograd_ratio("normal", 4, (2, 1, 16, 16), np.random.default_rng(0))
    with pytest.raises(AssertionError, match="above the bound"):
        winograd_ratio("normal", 4, (2, 1, 16, 16), np.random.default_rng(0), FLOAT32)


@dataclasses.dataclass(frozen=True, slots=True)
class NoUnderflow(bounds.Profile):
    """Planted fault: eta terms dropped."""

    tiny = 0.0


def test_winograd_judged_without_underflow_is_caught():
    with pytest.raises(AssertionError, match="above the bound"):
        winograd_ratio("subnormal", 4, (1, 2, 8, 8), np.random.default_rng(0), NoUnderflow(algorithm="winograd_4_3"))


@pytest.mark.parametrize("numpys", [True, False])
def test_fast_fourier_transform(numpys, record_property):
    rng, reached = np.random.default_rng(1), {}
    for kind in data.KINDS:
        for channels, size in ((1, 8), (3, 6)):
            x, w = image(kind, (1, channels, size, 9), rng), kernel(kind, (2, channels, 3, 3), rng)
            with np.errstate(all="ignore"):
                got = fft_conv2d(x, w, 1, numpys)
            ratio = worst_ratio(got, exact.conv2d(x, w, padding=1, out_dtype=None), bounds.conv2d_bound(x, w, padding=1, profile=FFT_FLOAT32))
            reached[kind] = max(reached.get(kind, 0), ratio)
    record_property("error/bound", reached)
    assert max(reached.values()) > 0


def test_fourier_judged_as_direct_is_caught():
    """A planted fault: the transform's error is relative to the whole image, not to the few numbers under a window."""
    x = np.zeros((1, 1, 16, 16))
    x[..., :4, :4], x[..., 8:, 8:] = 1e6, np.random.default_rng(0).standard_normal((8, 8))
    w = np.random.default_rng(1).standard_normal((1, 1, 3, 3)).astype(np.float32).astype(np.float64)
    x = x.astype(np.float32).astype(np.float64)
    truth = exact.conv2d(x, w, out_dtype=None)
    worst_ratio(fft_conv2d(x, w), truth, bounds.conv2d_bound(x, w, profile=FFT_FLOAT32))
    with pytest.raises(AssertionError, match="above the bound"):
        worst_ratio(fft_conv2d(x, w), truth, bounds.conv2d_bound(x, w))


def test_fourier_judged_without_underflow_is_caught():
    """Subnormal images and large kernels: what the transform of the image loses is enlarged by the kernel."""
    x = image("normal", (1, 1, 6, 6), np.random.default_rng(0))
    x, w = simulate.rounded(x * 2.0**-140, "float32"), np.full((1, 1, 3, 3), 2.0**20)
    got, truth = fft_conv2d(x, w), exact.conv2d(x, w, out_dtype=None)
    assert worst_ratio(got, truth, bounds.conv2d_bound(x, w, profile=FFT_FLOAT32)) > 0
    with pytest.raises(AssertionError, match="above the bound"):
        worst_ratio(got, truth, bounds.conv2d_bound(x, w, profile=NoUnderflow(algorithm="fft")))


@pytest.mark.parametrize("m", [*WINOGRAD, "fft"])
def test_input_gradients_by_transforms(m):
    """The convolution with turned kernels, full padding."""
    profile = WINOGRAD.get(m, FFT_FLOAT32)
    rng = np.random.default_rng(3)
    gy, w = image("normal", (1, 2, 6, 5), rng), image("normal", (2, 3, 3, 3), rng)
    turned = np.flip(w.swapaxes(0, 1), (2, 3))
    got = fft_conv2d(gy, turned, 1) if m == "fft" else winograd(gy, turned, m, 1)
    limit = bounds.conv2d_input_grad_bound(gy, w, (1, 3, 6, 5), padding=1, profile=profile)
    assert worst_ratio(got, exact.conv2d_input_grad(gy, w, (1, 3, 6, 5), padding=1, out_dtype=None), limit) > 0


def test_biases_groups_and_formats_of_transforms():
    """A bias enlarges the bound; groups are those of the direct convolution, one at a time; operands that must be rounded add their error."""
    rng = np.random.default_rng(4)
    x, w, b = (image("normal", shape, rng) for shape in ((2, 4, 6, 7), (4, 2, 3, 3), (4,)))
    for profile in (*WINOGRAD.values(), FFT_FLOAT32):
        whole = bounds.conv2d_bound(x, w, b, padding=1, groups=2, profile=profile)
        parts = [bounds.conv2d_bound(x[:, i:i + 2], w[i:i + 2], b[i:i + 2], padding=1, profile=profile) for i in (0, 2)]
        assert whole.tolist() == np.concatenate(parts, 1).tolist()
        assert (whole > bounds.conv2d_bound(x, w, padding=1, groups=2, profile=profile)).all()
        finer = bounds.conv2d_bound(x * (1 + 2.0**-30), w, b, padding=1, groups=2, profile=profile)
        assert (finer > whole * (1 + 2.0**-29)).all()
        big = bounds.conv2d_bound(x * 2.0**120, w * 2.0**10, padding=1, groups=2, profile=profile)
        assert (big == np.inf).all()
        assert bounds.conv2d_bound(x[:0], w, padding=1, groups=2, profile=profile).shape == (0, 4, 6, 7)


def test_intermediates_that_overflow_make_the_bound_infinite():
    """Constant images, which the transforms first sum up, times small kernels: only the direct convolution is sure to be finite."""
    x, w = np.full((1, 1, 8, 8), 2.0**126), np.full((1, 1, 3, 3), 2.0**-20)
    assert np.isfinite(bounds.conv2d_bound(x, w)).all()
    for profile in (*WINOGRAD.values(), FFT_FLOAT32):
        assert np.isinf(bounds.conv2d_bound(x, w, profile=profile)).all()
    with np.errstate(all="ignore"):
        assert not np.isfinite(fft_conv2d(x, w)).any()


def test_bad_input():
    one = np.ones((1, 1, 4, 4))
    with pytest.raises(ShapeError, match="`in_channels`"):
        bounds.conv2d_bound(one, np.ones((1, 2, 3, 3)))
    with pytest.raises(ShapeError, match=r"`x` has shape \(1, 4, 4\), but must have 4 axes"):
        bounds.conv2d_bound(one[0], one)
    with pytest.raises(ShapeError, match=r"`b` has shape \(2,\)"):
        bounds.conv2d_bound(one, one, np.ones(2))
    with pytest.raises(ShapeError, match="no window fits"):
        bounds.conv2d_bound(one, np.ones((1, 1, 5, 5)))
    with pytest.raises(ArgumentError, match="NaN or infinity"):
        bounds.conv2d_bound(one * np.inf, one)
    with pytest.raises(DTypeError, match="complex"):
        bounds.conv2d_bound(one * 1j, one)
    with pytest.raises(ArgumentError, match=r"`kernel` \(=\(2, 2\)\), `stride`"):
        bounds.conv2d_bound(one, np.ones((1, 1, 2, 2)), profile=WINOGRAD[2])
    with pytest.raises(ArgumentError, match="a weight gradient is bounded for 'direct' only"):
        bounds.conv2d_weight_grad_bound(one, one, (1, 1, 1, 1), profile=WINOGRAD[2])
    with pytest.raises(ArgumentError, match=r"`padding` \(=\(\(3, 3\), \(3, 3\)\)\) at most the kernel's extent - 1 \(=\(2, 2\)\)"):
        bounds.conv2d_input_grad_bound(np.ones((1, 1, 8, 8)), np.ones((1, 1, 3, 3)), (1, 1, 4, 4), padding=3, profile=FFT_FLOAT32)
    with pytest.raises(ShapeError, match=r"`gy` has 1 images, but `input_shape` \(=\(2, 1, 6, 6\)\) has 2"):
        bounds.conv2d_input_grad_bound(one, np.ones((1, 1, 3, 3)), (2, 1, 6, 6), profile=FFT_FLOAT32)
    with pytest.raises(ShapeError, match="output shape of a convolution"):
        bounds.conv2d_input_grad_bound(one, np.ones((1, 1, 3, 3)), (1, 1, 4, 4))
