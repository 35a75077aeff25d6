"""Certified functions: all of float16 and bfloat16 against `exact`, others at random, and the assumption they rest on against mpmath."""

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
from tests.truth import elementwise

NAMES = ["exp", "expm1", "log", "log1p", "sigmoid", "silu", "softplus", "tanh"]
HAS_WIDER = np.finfo(np.longdouble).nmant in (63, 112)
CANDIDATES = {"sigmoid": functions.wide_sigmoid, "silu": functions.wide_silu, "softplus": functions.wide_softplus}


def dtype(name):
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    return dtype_of(name)


def at_random(seed, count, kind=np.float32):
    """Half of them any bits at all, half of moderate size."""
    rng = np.random.default_rng(seed)
    size = np.dtype(kind).itemsize
    return np.concatenate([np.frombuffer(rng.bytes(count // 2 * size), kind), (rng.standard_normal(count // 2) * 6).astype(kind)])


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_every_half(name, kind):
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype(kind))
    value, repaired = getattr(functions, name)(x)
    assert_same_bits(value, getattr(exact, name)(x))
    assert repaired <= 256  # silu(x) = x/2 + x^2/4 is all but a tie for 2*128 odd x below twice the smallest normal


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_at_random(name, kind):
    x = at_random(NAMES.index(name), 8000, kind)
    value, repaired = getattr(functions, name)(x)
    assert_same_bits(value, getattr(exact, name)(x))
    assert repaired < (20 if kind == np.float32 else 400 if HAS_WIDER else 8001)


@pytest.mark.parametrize("name", NAMES)
@given(st.floats(width=32), st.floats())
def test_chosen_by_hypothesis(name, single, double):
    for x in np.array([single], np.float32), np.array([double]):
        assert_same_bits(getattr(functions, name)(x).value, getattr(exact, name)(x))


def difference(y, want):
    """|y - want|/(u*|want|) of an array of any precision, which is the sum of at most three float64."""
    with mpmath.workprec(200):
        parts = [y.astype(np.float64)]
        for _ in range(2):
            parts.append((y - sum(part.astype(y.dtype) for part in parts)).astype(np.float64))
        exactly = sum(elementwise(mpmath.mpf, part) for part in parts)
        unit = mpmath.mpf(float(np.finfo(y.dtype).eps)) / 2
        return np.array([float(abs(a - b) / (unit * abs(b))) for a, b in zip(exactly, want, strict=True)])


@pytest.mark.parametrize("wide", [np.float64, np.longdouble])
@pytest.mark.parametrize("name", NAMES)
def test_the_assumption_and_the_bounds_derived_from_it(name, wide):
    """4 ulp, at least 4u, for NumPy's own functions and FUNCTION or COMPOSITE less the rounding of the ends for the candidates."""
    x = at_random(10 + NAMES.index(name), 2000)
    x = np.concatenate([x[np.isfinite(x)].astype(np.float64), -np.logspace(-40, 2, 200), np.logspace(-40, 2, 200),
                        1 + np.linspace(-1e-3, 1e-3, 101)])
    x = x[(np.abs(x) < 600) & (x > {"log": 0, "log1p": -1}.get(name, -np.inf)) & ((x != 1) | (name != "log")) & (x != 0)]
    units = difference(CANDIDATES.get(name, getattr(np, name, None))(x.astype(wide)), elementwise(WITNESS[name], x))
    assert units.max() <= (functions.COMPOSITE - 2 if name in CANDIDATES else 4)


def test_the_assumption_can_fail():
    """exp(x) times 1 + 5u, whose error is 4u at the least, and so beyond what the test above grants."""
    x = np.linspace(0.1, 3, 30)
    for wide in (np.float64, np.longdouble):
        off = np.exp(x.astype(wide)) * (1 + 3 * np.finfo(wide).eps)
        assert difference(off, elementwise(mpmath.exp, x)).max() > 4


def test_a_candidate_worse_than_its_bound_is_caught():
    """exp in single precision: with a bound that is true of it all comes right, by way of many repairs; with the usual one it does not."""
    x = at_random(0, 4000)
    poor = lambda v: np.exp(v.astype(np.float32)).astype(np.float64)  # noqa: E731
    want = exact.exp(x)
    value, repaired = decided(poor, exact.exp, x, bound=8 * 2.0**29)
    assert_same_bits(value, want)
    assert repaired > 1000
    value, repaired = decided(poor, exact.exp, x, functions.FUNCTION)
    with pytest.raises(AssertionError):
        assert_same_bits(value, want)


def test_what_is_open_is_repaired():
    """A bound so wide that nothing is decided makes `exact` of it; one element that is a near tie is repaired alone."""
    x = at_random(1, 50)
    asked = []

    def repair(values):
        asked.append(values.copy())
        return exact.exp(values)

    finite = np.isfinite(exact.exp(x)) & (exact.exp(x) > 0)
    value, repaired = decided(np.exp, repair, x, bound=2.0**52)
    assert_same_bits(value, exact.exp(x))
    assert repaired >= finite.sum()
    eta = 2.0**-149
    x = np.array([0.5, eta, 1.5], np.float32)  # silu(eta) = eta/2 + eta^2/4, which no float64 tells from the tie
    value, repaired = decided(functions.wide_silu, lambda v: asked.append(v) or exact.silu(v), x, functions.COMPOSITE)
    assert repaired == 1
    assert asked[-1].tolist() == [eta]
    assert_same_bits(value, exact.silu(x))
    assert value[1] == eta


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


def test_without_a_wider_format_everything_is_repaired(monkeypatch):
    monkeypatch.setitem(functions.WIDER, "float64", np.float64)
    x = at_random(2, 100, np.float64)
    value, repaired = functions.tanh(x)
    assert repaired == 100
    assert_same_bits(value, exact.tanh(x))


def test_shapes_and_dtypes():
    assert functions.exp(np.float32(0)).value.shape == ()
    assert functions.exp(np.zeros((2, 0), np.float16)).value.shape == (2, 0)
    assert functions.exp(np.ones(2, ">f4")).value.dtype == np.float32
    assert functions.exp(np.ones((3, 4), np.float32).T).value.shape == (4, 3)
    for kind in (np.longdouble, np.int32):
        with pytest.raises(DTypeError, match="must be one of float16, bfloat16, float32, float64"):
            functions.exp(np.ones(1, kind))
