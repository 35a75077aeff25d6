"""The exactness certificate: where it holds, every machine gives the exact result, in every order."""

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from npreparam import ArgumentError, exact, ops
from npreparam.certified import strategies
from npreparam.certified.bounds import FLOAT16_FLOAT16, FLOAT32, TF32, Profile, is_order_free
from npreparam.certified.bounds.exactness import trailing_exponent
from tests.certified import simulate

MACHINES = {24: FLOAT32, 11: FLOAT16_FLOAT16, 8: Profile("bfloat16", "bfloat16", output="bfloat16")}


def outputs(drawn, profile, style, rng):
    geometry = tuple(drawn[name] for name in ("stride", "padding", "dilation", "groups"))
    return simulate.conv2d(drawn["x"], drawn["w"], profile, style, rng, drawn["b"], geometry)


def is_exact(y, drawn):
    """Which elements are the exact result, compared as rationals."""
    truth = exact.conv2d(**drawn, out_dtype=None)
    return exact.as_fractions(np.where(np.isfinite(y.astype(np.float64)), y, 0), "y") == truth


@given(st.data(), st.sampled_from(sorted(MACHINES)), st.sampled_from(simulate.STYLES), st.randoms(use_true_random=False))
def test_order_free_data_are_exact_in_every_order(data, bits, style, random):
    drawn = data.draw(strategies.order_free(bits))
    assert is_order_free(**drawn, significand_bits=bits).all()
    style = "random_tree" if style == "fma" and bits != 24 else style
    assert is_exact(outputs(drawn, MACHINES[bits], style, np.random.default_rng(random.getrandbits(32))), drawn).all()
    event(f"largest output {int(np.log2(np.abs(exact.conv2d(**drawn)).max() + 1))} bits")


@given(strategies.order_free(11))
def test_eleven_bits_survive_tensor_cores_and_the_library(drawn):
    """Operands of at most 11 bits are not rounded to TF32, and nothing is truncated; the library's own float32 chain is exact, too."""
    assert is_exact(outputs(drawn, TF32, "sequential", np.random.default_rng(0)), drawn).all()
    narrow = {name: None if drawn[name] is None else drawn[name].astype(np.float32) for name in ("x", "w", "b")}
    assert is_exact(ops.conv2d(**drawn | narrow), drawn).all()


@given(strategies.geometries(), st.integers(0, 2**32 - 1), st.integers(9, 13))
def test_wherever_it_is_true_of_any_data(geometry, seed, bits):
    """Sums around 2^24 of magnitudes: the certificate holds for some outputs and not for others."""
    rng = np.random.default_rng(seed)
    x, w = (rng.integers(-2**bits, 2**bits, geometry.pop(name)) * 0.5 for name in ("x_shape", "w_shape"))
    drawn = {"x": x, "w": w, "b": rng.integers(-9, 9, len(w)) * 0.25, **geometry}
    free = is_order_free(**drawn)
    event(f"free: {bool(free.any())}, not free: {not free.all()}")
    for style in ("shuffled", "pairwise"):
        assert is_exact(outputs(drawn, FLOAT32, style, rng), drawn)[free].all()


def test_the_limit_itself():
    """2^24*q is reached exactly; one more is not free, and indeed is inexact: 2^24 + 1 in float32, in one order."""
    x = np.array([[[[2.0**24 - 1, 1.0]]]])
    w = np.ones((1, 1, 1, 2))
    assert is_order_free(x, w).item()
    assert not is_order_free(x, w, np.ones(1)).item()
    assert np.float32(2**24) + np.float32(1) == 2**24
    assert is_order_free(x * 0.5, w, np.zeros(1)).item()
    assert not is_order_free(x, w, np.array([0.5])).item()
    assert is_order_free(x, w, significand_bits=53).item()
    x[0, 0, 0, 0] = 2.0**52 - 1
    assert is_order_free(x, w, significand_bits=53).item()
    assert not is_order_free(x, 1.5 * w, significand_bits=53).item()


def test_ranges():
    """Subnormal numbers may be flushed and large ones overflow: not certified."""
    one = np.ones((1, 1, 1, 1))
    assert is_order_free(one * 2.0**-126, one).item()
    assert not is_order_free(one * 2.0**-127, one).item()
    assert not is_order_free(one * 2.0**-100, one * 2.0**-27).item()
    assert not is_order_free(one * 2.0**127, one).item()
    assert not is_order_free(one * 2.0**15, one, significand_bits=11).item()
    assert is_order_free(one * 2.0**15, one, significand_bits=8).item()
    assert is_order_free(0 * one, one).item()


def test_images_and_kernels_are_judged_apart():
    x, w = np.ones((2, 1, 1, 1)), np.ones((2, 1, 1, 1))
    x[1], w[1] = 1 + 2.0**-12, 1 + 2.0**-13
    assert is_order_free(x, w)[..., 0, 0].tolist() == [[True, True], [True, False]]


def test_the_certificate_can_fail():
    """A planted fault: 24 bits promised for a float16 accumulator."""
    rng = np.random.default_rng(0)
    drawn = {"x": rng.integers(-99, 99, (1, 2, 4, 4)) * 1.0, "w": rng.integers(-99, 99, (2, 2, 3, 3)) * 1.0, "b": None,
             "stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    assert is_order_free(**drawn, significand_bits=24).all()
    assert not is_order_free(**drawn, significand_bits=11).any()
    assert is_exact(outputs(drawn, FLOAT32, "shuffled", rng), drawn).all()
    assert not is_exact(outputs(drawn, FLOAT16_FLOAT16, "shuffled", rng), drawn).all()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_trailing_exponents(x):
    """x/2^e is an odd integer."""
    if x:
        mantissa, denominator = abs(x).as_integer_ratio()
        lowest = (mantissa & -mantissa).bit_length() - 1 - (denominator.bit_length() - 1)
        assert trailing_exponent(np.array([x])).item() == lowest


def test_bad_input():
    one = np.ones((1, 1, 1, 1))
    with pytest.raises(ArgumentError, match=r"`significand_bits` \(=54\) must be at most 53"):
        is_order_free(one, one, significand_bits=54)
    with pytest.raises(ArgumentError, match=r"`significand_bits` \(=0\) must be positive"):
        is_order_free(one, one, significand_bits=0)
    with pytest.raises(ArgumentError, match="NaN or infinity"):
        is_order_free(one * np.inf, one)
