"""Correctly rounded functions: by certificate from mpmath, by all of float16 against float64, and where the answer is known by hand."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, DTypeError, exact, ops
from npreparam.exact.elementary import exp_between
from npreparam.exact.rounding import FORMATS, dtype_of
from npreparam.exact.ziv import round_real
from tests.exact.certificate import WITNESS, certify, real
from tests.tolerances import assert_same_bits, assert_within, function_bound

NAMES = list(WITNESS)
PRECISION = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
ULPS = 8  # of float64, granted to NumPy's functions and to the composites below; what they do not decide, mpmath does


def dtype(name):
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    return dtype_of(name)


def in_domain(name, x):
    """Finite arguments whose value is irrational."""
    start = {"log": 0, "sqrt": 0, "log1p": -1}.get(name, -np.inf)
    keep = np.isfinite(x) & (x > start) & ((x != 0) | (name == "softplus")) & ((x != 1) | (name != "log"))
    return keep & (name != "sqrt")


def float64(name, x):
    """NumPy's double precision functions and composites."""
    with np.errstate(all="ignore"):
        small = np.exp(-np.abs(x))
        sigmoid = np.where(x < 0, small, 1) / (1 + small)
        composite = {"sigmoid": sigmoid, "silu": x * sigmoid, "softplus": np.maximum(x, 0) + np.log1p(small)}
        return composite[name] if name in composite else getattr(np, name)(x)


def certify_all(name, x, out_dtype="same"):
    for argument, y in zip(x.ravel(), getattr(exact, name)(x, out_dtype=out_dtype).ravel(), strict=True):
        certify(y, real(WITNESS[name], argument))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "sqrt"])
def test_all_of_float16(name):
    """float64 with an error bound decides nearly every rounding; the rest is certified, and none may be left out."""
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    x = x[in_domain(name, x.astype(np.float64))]
    y, near = getattr(exact, name)(x), np.clip(float64(name, x.astype(np.float64)), -1e300, 1e300)  # infinity in float16
    bound = function_bound(ULPS, near, np.float64)
    with np.errstate(over="ignore"):
        low, high = (near - bound).astype(np.float16), (near + bound).astype(np.float16)
    decided = low == high
    assert_same_bits(y[decided], np.copysign(low, near).astype(np.float16)[decided])
    assert (~decided).sum() < 10  # none was found
    certify_all(name, x[~decided])


def test_square_roots_of_all_of_float16():
    """The square of a float16 halfway point has 24 bits, so that float64 decides exactly."""
    x = np.arange(0x7C00, dtype=np.uint16).view(np.float16)
    y = exact.sqrt(x).astype(np.float64)
    down, up = (np.nextafter(y.astype(np.float16), np.float16(to)).astype(np.float64) for to in (-1, np.inf))
    assert (((down + y) / 2) ** 2 <= x)[1:].all()
    assert (x <= ((y + up) / 2) ** 2).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_square_roots_are_those_of_ieee(kind):
    """IEEE 754 prescribes correct rounding for this function alone, and processors obey."""
    rng = np.random.default_rng(0)
    x = np.ldexp(rng.random(2000), rng.integers(-140, 120, 2000)).astype(kind)
    assert_same_bits(exact.sqrt(x), np.sqrt(x))


@pytest.mark.parametrize("name", NAMES)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_certificate_in_float64(name, value):
    x = np.array([value])
    certify_all(name, x[in_domain(name, x)])


@pytest.mark.parametrize("name", NAMES)
@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_certificate_in_float32(name, value):
    x = np.array([value], np.float32)
    certify_all(name, x[in_domain(name, x)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", list(PRECISION))
@given(st.floats(-800, 800), st.integers(-30, 0))
def test_certificate_from_float64_to_every_format(kind, name, value, scale):
    x = np.array([value * 2.0**scale])
    certify_all(name, x[in_domain(name, x)], out_dtype=dtype(kind))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_numpy_is_a_few_ulp_away(name, kind):
    """A witness for gross errors: other people's code, and in float32 other algorithms."""
    x = np.random.default_rng(1).standard_normal(1000).astype(kind) * 4
    x = np.abs(x) if name in ("log", "log1p", "sqrt") else x
    near = float64(name, x)
    assert near.dtype == kind
    assert_within(near, getattr(exact, name)(x), function_bound(ULPS, near, kind))


@pytest.mark.parametrize("name", [name for name in (*NAMES, "relu", "leaky_relu") if hasattr(ops, name)])
def test_ops_agree(name):
    """The public operations, on the special values, too; `silu` of minus infinity is NaN there."""
    x = np.array([-np.inf, -3.0, -0.0, 0.0, 1e-3, 2.5, np.inf, np.nan])
    x = x[1:] if name == "silu" else x
    y, near = getattr(exact, name)(x), getattr(ops, name)(x)
    assert_within(near, y, function_bound(ULPS, np.nan_to_num(near, posinf=0, neginf=0), np.float64))
    zero = (y == 0) & (x == 0)
    assert_same_bits(near[zero], y[zero])


SPECIAL = np.array([-np.inf, -0.0, 0.0, np.inf, np.nan, -1.0])
AT = {"exp": [0.0, 1.0, 1.0, np.inf], "expm1": [-1.0, -0.0, 0.0, np.inf], "log": [np.nan, -np.inf, -np.inf, np.inf],
      "log1p": [np.nan, -0.0, 0.0, np.inf], "sqrt": [np.nan, -0.0, 0.0, np.inf], "sigmoid": [0.0, 0.5, 0.5, 1.0],
      "tanh": [-1.0, -0.0, 0.0, 1.0], "softplus": [0.0, np.log(2.0), np.log(2.0), np.inf], "silu": [-0.0, -0.0, 0.0, np.inf],
      "relu": [0.0, 0.0, 0.0, np.inf], "leaky_relu": [-np.inf, -0.0, 0.0, np.inf]}
MINUS_ONE = {"log": np.nan, "sqrt": np.nan, "log1p": -np.inf, "relu": 0.0}


@pytest.mark.parametrize("kind", list(PRECISION))
@pytest.mark.parametrize("name", list(AT))
def test_special_values(name, kind):
    y = getattr(exact, name)(SPECIAL.astype(dtype(kind)))
    want = np.array([*AT[name], np.nan], dtype(kind))
    np.testing.assert_array_equal(y[:5].astype(np.float64), want.astype(np.float64))
    signed = ~np.isnan(want)
    assert np.signbit(y[:5])[signed].tolist() == np.signbit(want)[signed].tolist()
    if name in MINUS_ONE:
        np.testing.assert_array_equal(np.float64(y[5]), MINUS_ONE[name])


def test_logarithm_below_its_domain_and_at_one():
    assert np.isnan(exact.log(np.array([-1e-300, -np.inf]))).all()
    assert np.isnan(exact.log1p(np.array([-1.5, np.nextafter(-1, -2)]))).all()
    assert exact.log1p(np.nextafter(-1.0, 0)) == -np.float64(53) * np.log(2)
    assert_same_bits(exact.log(np.array([1.0])), np.array([0.0]))


@pytest.mark.parametrize("kind", list(PRECISION))
def test_just_beside_a_tie(kind):
    """Values that agree with a halfway point to twice the format's precision; rounding the halfway point to even errs."""
    p, kind = PRECISION[kind], dtype(kind)
    spacing = 2.0 ** (1 - p)
    assert exact.exp(np.array([spacing / 2], kind)) == 1 + spacing  # 1 + h/2 + h^2/8
    assert exact.exp(np.array([-spacing / 4], kind)) == 1  # 1 - h/4 + h^2/32, and h/4 is half a spacing below 1
    assert exact.exp(np.array([-3 * spacing / 4], kind)) == 1 - spacing / 2  # 1 - 3h/4 + ..., not down to 1 - h
    assert exact.sigmoid(np.array([spacing], kind)) == 0.5  # 1/2 + h/4 - h^3/48
    assert exact.sigmoid(np.array([3 * spacing], kind)) == 0.5 + spacing / 2  # 1/2 + 3h/4 - ..., not up to 1/2 + h
    assert exact.log1p(np.array([spacing], kind)) == spacing - spacing**2 / 2  # h - h^2/2 + h^3/3, and h^2/2 is the spacing below h
    assert exact.expm1(np.array([spacing], kind)) == spacing + spacing**2  # h + h^2/2 + h^3/6, and h^2 is the spacing above h


def narrow(name, x, kind):
    return float(getattr(exact, name)(np.array([x], object), out_dtype=kind)[0])


@pytest.mark.parametrize("kind", list(PRECISION))
def test_arguments_that_are_ties_of_the_result(kind):
    """h/2 over 1 is halfway: functions near the identity leave it by so little that no fixed precision is enough."""
    p, kind = PRECISION[kind], dtype(kind)
    spacing = Fraction(2) ** (1 - p)
    down, tie, up = (1 + k * spacing / 2 for k in (2, 3, 4))  # the tie rounds to even: up
    tiny = Fraction(1, 2**13 if kind == np.float16 else 2**100)
    assert narrow("tanh", tie * tiny, kind) == narrow("log1p", tie * tiny, kind) == down * tiny
    assert narrow("expm1", tie * tiny, kind) == up * tiny
    assert narrow("softplus", 64 * tie, kind) == 64 * up
    even, tie, up = (1 + k * spacing / 2 for k in (0, 1, 2))
    assert narrow("softplus", 64 * even, kind) == 64 * even
    assert narrow("softplus", 64 * tie, kind) == 64 * up
    assert narrow("softplus", 2**12 * tie, kind) == 2**12 * up
    assert narrow("softplus", 2**15 * tie, kind) == 2**15 * up  # beyond LIMIT, where exp(-x) is known only not to be 0
    assert narrow("leaky_relu", tie, kind) == even
    assert narrow("sqrt", tie * tie, kind) == even
    assert narrow("sqrt", tie * tie + Fraction(1, 2**300), kind) == up


def test_the_hardest_exponential_of_float64():
    """Fifty-nine equal bits follow the halfway point (Lefevre and Muller, INRIA report RR-4044, 2000): 85 bits do not decide, 170 do."""
    x = float.fromhex("0x1.9e9cbbfd6080bp-31")
    y = exact.exp(np.array([x]))[0]
    certify(y, real(mpmath.exp, x))
    asked = []
    bits = round_real(lambda n: asked.append(n) or exp_between(Fraction(x), n), FORMATS["float64"])
    assert asked == [85, 170]
    assert bits == y.view(np.uint64)


def test_rounding_twice_is_caught():
    """softplus(64 + 2^-18) = 64 + 2^-18 + exp(-64): float64 loses the last term, and then float32 sees a tie."""
    x = np.array([64 + 2.0**-18])
    once, twice = exact.softplus(x, out_dtype=np.float32)[0], exact.softplus(x).astype(np.float32)[0]
    assert (once, twice) == (64 + 2.0**-17, 64)
    certify(once, real(WITNESS["softplus"], x[0]))
    with pytest.raises(AssertionError):
        certify(twice, real(WITNESS["softplus"], x[0]))


@pytest.mark.parametrize("kind", list(PRECISION))
@pytest.mark.parametrize("name", NAMES)
def test_a_planted_ulp_is_caught(name, kind):
    y, value = getattr(exact, name)(np.array([0.7], dtype(kind)))[0], real(WITNESS[name], dtype(kind).type(0.7))
    certify(y, value)
    index = np.abs(y).view(f"u{y.dtype.itemsize}")
    for wrong in (index - 1, index + 1):
        with pytest.raises(AssertionError):
            certify(np.array(wrong, index.dtype).view(y.dtype)[()] * np.sign(y), value)


@pytest.mark.parametrize("kind", list(PRECISION))
def test_the_ends_of_the_range(kind):
    """Both sides of overflow, of the smallest subnormal number and of half of it, found by the logarithm of the threshold."""
    kind = dtype(kind)
    e_max, p = {"float16": 15, "bfloat16": 127, "float32": 127, "float64": 1023}[kind.name], PRECISION[kind.name]
    e_min = 1 - e_max
    with mpmath.workprec(200):
        for threshold in (2 - mpmath.mpf(2) ** -p) * mpmath.mpf(2) ** e_max, mpmath.mpf(2) ** (e_min - p), mpmath.mpf(2) ** e_min:
            x = float(mpmath.log(threshold))
            for argument in (np.nextafter(x, -np.inf), x, np.nextafter(x, np.inf)):
                for name in ("exp", "expm1", "sigmoid", "softplus"):
                    certify_all(name, np.array([argument]), out_dtype=kind)
    assert exact.exp(np.array([e_max + 1.0]), out_dtype=kind) == np.inf  # exp(n) > 2^n
    assert exact.exp(np.array([float(e_min - p)]), out_dtype=kind) == 0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "sqrt"])
def test_huge_and_tiny_arguments_take_no_time(name):
    """1e308 must not be exponentiated by 10^308 bits."""
    sizes = np.array([1e308, 1e30, 5000, 1e-30, 1e-308, 5e-324])
    x = np.concatenate([sizes, -sizes])
    certify_all(name, x[in_domain(name, x)])
    assert narrow("exp", Fraction(10) ** 400, np.float32) == np.inf
    assert narrow("silu", -(Fraction(10) ** 400), np.float32) == 0


@given(st.fractions(), st.floats(-4, 4))
def test_rational_functions(x, slope):
    want = exact.round_array(np.array([max(x, Fraction(0)), x if x > 0 else Fraction(slope) * x], object), np.float32)
    got = narrow("relu", x, np.float32), exact.leaky_relu(np.array([x], object), slope, np.float32)[0]
    assert got == tuple(want)


def test_leaky_relu_with_extreme_slopes():
    x = np.array([-np.inf, -1.0, 1.0])
    assert exact.leaky_relu(x, 0).tolist() == [0, 0, 1]
    assert exact.leaky_relu(x, -2.0).tolist() == [np.inf, 2, 1]
    assert exact.leaky_relu(x[1:].astype(np.float32), 0.1)[0] == -np.float32(0.1)


def test_shapes_dtypes_and_bad_input():
    assert exact.exp(np.float32(1)).shape == ()
    assert exact.exp(np.zeros((2, 0), np.float32)).shape == (2, 0)
    assert exact.exp(np.zeros((2, 3), np.float16)[:, ::2]).dtype == np.float16
    assert exact.exp(np.ones(1, ">f4")).tolist() == exact.exp(np.ones(1, np.float32)).tolist()
    assert exact.exp(np.array([1]), out_dtype=np.float64) == np.e
    with pytest.raises(DTypeError, match="`out_dtype`"):
        exact.exp(np.array([1]))
    with pytest.raises(DTypeError, match=r"`out_dtype` \(='None'\)"):
        exact.exp(np.ones(1), out_dtype=None)
    with pytest.raises(DTypeError, match="`x` has dtype complex128"):
        exact.exp(np.ones(1, complex), out_dtype=np.float64)
    with pytest.raises(ArgumentError, match="`slope` holds NaN"):
        exact.leaky_relu(np.ones(1), np.nan)
