"""Certified functions: all of float16 and bfloat16 against `exact`, float32 at random, and the assumption they rest on against mpmath."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import DTypeError, exact
from npreparam.certified import functions
from npreparam.certified.functions import decided, narrowed
from npreparam.exact.rounding import dtype_of
from tests.exact.certificate import WITNESS
from tests.tolerances import assert_same_bits
from tests.truth import assert_ulps, elementwise

NAMES = ["exp", "expm1", "log", "log1p", "sigmoid", "silu", "softplus", "tanh"]
CANDIDATES = {"sigmoid": functions.wide_sigmoid, "silu": functions.wide_silu, "softplus": functions.wide_softplus}


def dtype(name):
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    return dtype_of(name)


def random_float32(seed, count):
    """Half of them any bits at all, half of moderate size."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.integers(0, 1 << 32, count // 2, dtype=np.uint32).view(np.float32),
                           (rng.standard_normal(count // 2) * 6).astype(np.float32)])


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_every_half(name, kind):
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype(kind))
    value, repaired = getattr(functions, name)(x)
    assert_same_bits(value, getattr(exact, name)(x))
    assert repaired <= 256  # silu halves small numbers: x/2 + x^2/4 is a near tie for each of 2*64 odd subnormal ones, and few others


@pytest.mark.parametrize("name", NAMES)
def test_float32_at_random(name):
    x = random_float32(NAMES.index(name), 8000)
    value, repaired = getattr(functions, name)(x)
    assert_same_bits(value, getattr(exact, name)(x))
    assert repaired < 20


@pytest.mark.parametrize("name", NAMES)
@given(st.floats(width=32))
def test_float32_chosen_by_hypothesis(name, value):
    x = np.array([value], np.float32)
    assert_same_bits(getattr(functions, name)(x).value, getattr(exact, name)(x))


@pytest.mark.parametrize("name", NAMES)
def test_the_assumption_and_the_bounds_derived_from_it(name):
    """4 ulp for NumPy's own functions, 32u = 16 ulp at the least for the composites, wherever float64 does not underflow."""
    x = random_float32(10 + NAMES.index(name), 3000)
    x = np.concatenate([x[np.isfinite(x)].astype(np.float64), -np.logspace(-40, 2, 200), np.logspace(-40, 2, 200), 1 + np.linspace(-1e-3, 1e-3, 101)])
    x = x[(np.abs(x) < 600) & (x > {"log": 0, "log1p": -1}.get(name, -np.inf))]
    y = CANDIDATES.get(name, getattr(np, name, None))(x)
    assert_ulps(y, elementwise(WITNESS[name], *[x]), 16 if name in CANDIDATES else 4)


def test_a_candidate_worse_than_its_bound_is_caught():
    """exp in single precision: with a bound that is true of it all comes right, by way of many repairs; with the usual one it does not."""
    x = random_float32(0, 4000)
    poor = lambda v: np.exp(v.astype(np.float32)).astype(np.float64)  # noqa: E731
    want = exact.exp(x)
    value, repaired = decided(poor, exact.exp, x, bound=8 * 2.0**-24)
    assert_same_bits(value, want)
    assert repaired > 1000
    value, repaired = decided(poor, exact.exp, x)
    with pytest.raises(AssertionError):
        assert_same_bits(value, want)
    with pytest.raises(AssertionError):
        assert_ulps(poor(x[np.abs(x) < 80]), elementwise(mpmath.exp, x[np.abs(x) < 80]), 4)


def test_what_is_open_is_repaired():
    """A bound so wide that nothing is decided makes `exact` of it; one element that is a near tie is repaired alone."""
    x = random_float32(1, 50)
    asked = []

    def repair(values):
        asked.append(values.copy())
        return exact.exp(values)

    finite = np.isfinite(exact.exp(x)) & (exact.exp(x) > 0)
    value, repaired = decided(np.exp, repair, x, bound=0.5)
    assert_same_bits(value, exact.exp(x))
    assert repaired >= finite.sum()
    x = np.array([0.5, 2.0**-24, 1.5], np.float32)  # exp(2^-24) = 1 + 2^-24 + 2^-49 + ..., which 32u do not tell from the tie
    value, repaired = decided(np.exp, repair, x)
    assert repaired == 1
    assert asked[-1].tolist() == [2.0**-24]
    assert_same_bits(value, exact.exp(x))
    assert value[1] == 1 + 2.0**-23


@given(st.integers(0, 2**16 - 2), st.sampled_from([-1, 0, 1]), st.integers(9, 44), st.booleans())
def test_bfloat16_is_rounded_once(bits, side, distance, negative):
    """Around every halfway point, at every distance: `exact.round_array` decides, and the plain cast of ml_dtypes need not."""
    kind = dtype("bfloat16")
    near = np.array([bits & 0x7FFF], np.uint16).view(kind).astype(np.float64)
    if not np.isfinite(near).all():
        return
    following = np.array([(bits & 0x7FFF) + 1], np.uint16).view(kind).astype(np.float64)
    middle = (near + np.minimum(following, 2.0**128)) / 2
    y = middle * (1 + side * 2.0**-distance) * (-1 if negative else 1)
    with np.errstate(over="ignore"):
        assert_same_bits(narrowed(y, kind), exact.round_array(y, kind))


def test_the_plain_cast_to_bfloat16_rounds_twice():
    y = np.array([1 + 2.0**-8 + 2.0**-40])
    kind = dtype("bfloat16")
    assert narrowed(y, kind).astype(float) == 1 + 2.0**-7
    assert y.astype(np.float32).astype(kind).astype(float) == 1


def test_shapes_and_dtypes():
    assert functions.exp(np.float32(0)).value.shape == ()
    assert functions.exp(np.zeros((2, 0), np.float16)).value.shape == (2, 0)
    assert functions.exp(np.ones(2, ">f4")).value.dtype == np.float32
    assert functions.exp(np.ones((3, 4), np.float32).T).value.shape == (4, 3)
    for kind in (np.float64, np.int32):
        with pytest.raises(DTypeError, match="must be one of float16, bfloat16, float32"):
            functions.exp(np.ones(1, kind))
