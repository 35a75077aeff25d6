"""Rounding judged by certificate: between the two halfway points around the answer, ties to even; never by rounding again."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from npreparam import ArgumentError, DTypeError
from npreparam.exact import as_fractions, round_array, round_tf32
from npreparam.exact.rounding import FORMATS, TF32, dtype_of, over_common, round_to_bits
from npreparam.exact.special import INF

NAMES = ["float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
SHORT = ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
FLOAT8 = SHORT[2:]
FINITE = {"float16": 31 * 1024, "bfloat16": 255 * 128, "float8_e4m3fn": 127, "float8_e5m2": 31 * 4}  # values from 0 up


def dtype(name):
    if name not in ("float16", "float32", "float64"):
        pytest.importorskip("ml_dtypes")
    return dtype_of(name)


def certify(value, bits, name):
    """`bits` are the magnitude bits of the rounding of |value|: it lies between the two halfway points, on one only if even."""
    form, value = TF32 if name == "tf32" else FORMATS[name], abs(value)
    # Infinity stands for the next power of two here, the NaN of float8_e4m3fn for 480.
    top = 127 if name == "float8_e4m3fn" else (form.e_max - form.e_min + 2) << (form.precision - 1)

    def number(bits):
        exponent, fraction = divmod(bits, 1 << (form.precision - 1))
        lead = (1 << (form.precision - 1)) if exponent else 0
        return Fraction(fraction + lead) * Fraction(2) ** (form.e_min - form.precision + 1 + max(exponent, 1) - 1)

    assert 0 <= bits <= top
    even = bits % 2 == 0
    if bits:
        half_way_down = (number(bits - 1) + number(bits)) / 2
        assert half_way_down < value or (even and half_way_down == value)
    if bits < top:
        half_way_up = (number(bits) + number(bits + 1)) / 2
        assert value < half_way_up or (even and value == half_way_up)


def magnitude_bits(value, name):
    width = np.dtype(FORMATS[name].bits).itemsize * 8
    return round_to_bits(value, FORMATS[name]) & ((1 << (width - 1)) - 1)


def patterns(name):
    """Every bit pattern of a short format, the positive ones first."""
    kind = dtype(name)
    unsigned = FORMATS[name].bits
    return np.arange(np.iinfo(unsigned).max + 1, dtype=unsigned).view(kind)


def finite_values(name):
    """All finite values from 0 up, as fractions."""
    with np.errstate(invalid="ignore"):  # signalling NaN
        values = patterns(name).astype(np.float64)
    return [Fraction(v) for v in values[:values.size // 2].tolist() if np.isfinite(v)]


@pytest.mark.parametrize("name", SHORT)
def test_every_finite_value_and_every_midpoint_exhaustive(name):
    finite = finite_values(name)
    assert len(finite) == FINITE[name]
    for i, value in enumerate(finite):
        assert round_to_bits(value, FORMATS[name]) == i
        if i + 1 < len(finite):
            middle, nudge = (value + finite[i + 1]) / 2, Fraction(1, 2**200)
            assert round_to_bits(middle, FORMATS[name]) == i + i % 2  # ties to even
            assert round_to_bits(middle - nudge, FORMATS[name]) == i
            assert round_to_bits(middle + nudge, FORMATS[name]) == i + 1


@pytest.mark.parametrize("name", SHORT)
def test_all_patterns_return_exhaustive(name):
    """Through Fraction and back, bit for bit; only the sign of a zero is lost; NaN and infinities, which are no Fractions, stay themselves."""
    values, unsigned = patterns(name), FORMATS[name].bits
    with np.errstate(invalid="ignore"):
        wide = values.astype(np.float64)
    number = np.isfinite(wide)
    back = round_array(as_fractions(values[number], "values"), name)
    expected = np.where(values[number] == 0, 0, values[number].view(unsigned))
    assert (back.view(unsigned) == expected).all()
    np.testing.assert_array_equal(round_array(values, name).astype(np.float64), wide)
    for value in values[~number]:
        with pytest.raises(ArgumentError, match="NaN or infinity"):
            as_fractions(value, "x")


@pytest.mark.parametrize("name", FLOAT8)
def test_ml_dtypes_agrees_on_every_float16_and_around_every_midpoint_exhaustive(name):
    """Its own conversions are the witness: all of float16, and in float32 every midpoint with its neighbours, the last one to overflow."""
    kind, finite = dtype(name), [float(value) for value in finite_values(name)]
    step = finite[-1] - finite[-2]
    middles = np.float32([(low + high) / 2 for low, high in zip(finite, [*finite[1:], finite[-1] + step], strict=True)])
    around = np.concatenate([middles, np.nextafter(middles, np.float32(np.inf)), np.nextafter(middles, np.float32(-np.inf))])
    specials = np.float32([np.nan, np.inf, -np.inf, 2.0**127, -(2.0**127), 2.0**-149, -(2.0**-149)])
    with np.errstate(invalid="ignore"):
        halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    for values in (halves, around, -around, specials):
        with np.errstate(all="ignore"):
            expected = values.astype(kind)
        got = round_array(values, name)
        np.testing.assert_array_equal(got.astype(np.float64), expected.astype(np.float64))
        signed = (values != 0) & ~np.isnan(expected.astype(np.float64))  # an exact zero is +0; the sign of a NaN means nothing
        assert (np.signbit(got.astype(np.float64)) == np.signbit(expected.astype(np.float64)))[signed].all()


def test_overflow_of_float8():
    """448 is the largest value of e4m3fn, and 464 a tie that goes to its even significand; e5m2 has 57344, and an infinity from 61440 on."""
    nudge = Fraction(1, 2**60)
    values = np.array([448, 464, 464 + nudge, -464 - nudge, 10**9], dtype=object)
    np.testing.assert_array_equal(round_array(values, dtype("float8_e4m3fn")).astype(float), [448, 448, np.nan, np.nan, np.nan])
    values = np.array([57344, 61440 - nudge, 61440, -61440, 10**9], dtype=object)
    np.testing.assert_array_equal(round_array(values, dtype("float8_e5m2")).astype(float), [57344, 57344, np.inf, -np.inf, np.inf])


def tf32_by_bits(array):
    """The witness: add half of the 13 bits to be dropped (and the last bit kept, to break ties to even), then drop them."""
    bits = array.view(np.uint32)
    return ((bits + np.uint32(0xFFF) + (bits >> np.uint32(13) & np.uint32(1))) & np.uint32(0xFFFFE000)).view(np.float32)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40))
@example([0x3F801000, 0x3F803000, 0x3F801001, 0x7F7FF000, 0x7F7FEFFF, 0x80000FFF, 0x80001001, 0x807FFFFF, 0x80000000])
def test_tf32_agrees_with_the_rounding_of_bits(patterns):
    values = np.array(patterns, np.uint32).view(np.float32)
    values = values[~np.isnan(values)]
    assert (round_tf32(values).view(np.uint32) == tf32_by_bits(values).view(np.uint32)).all()


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
@example(2.0**-149)
@example(2.0**-137)  # half the smallest subnormal: to zero
@example(float(np.finfo(np.float32).max))
def test_tf32_certificate(value):
    got = round_tf32(np.float32([value])).view(np.uint32).item()
    assert got & 0x1FFF == 0
    certify(Fraction(value), (got & 0x7FFFFFFF) >> 13, "tf32")


def test_tf32_special_values_and_bad_input():
    values = np.float32([np.inf, -np.inf, 0.0, -0.0, np.nan])
    got = round_tf32(values)
    np.testing.assert_array_equal(got, values)
    assert (np.signbit(got) == np.signbit(values)).all()
    assert round_tf32(np.float32(1)).shape == ()
    with pytest.raises(DTypeError, match="`array` has dtype float64, but must be float32"):
        round_tf32(np.ones(1))


numerators, denominators = st.integers(-2**70, 2**70), st.integers(1, 2**70)
rationals = st.builds(lambda n, d, e: Fraction(n, d) * Fraction(2) ** e, numerators, denominators, st.integers(-1200, 1100))


@given(rationals, st.sampled_from(list(FORMATS)))
@example(Fraction(2**24 + 1), "float32")  # a tie
@example(Fraction(2**24 + 1) + Fraction(1, 2**80), "float32")  # just above: rounding to float64 first would lose it
@example(Fraction(1, 2**150), "float32")  # half the smallest subnormal: to zero
@example(Fraction(2**128 - 2**103), "float32")  # the midpoint to overflow: to infinity
@example(Fraction(2**1024 - 2**970), "float64")
@example(Fraction(464), "float8_e4m3fn")  # a tie with what would be 480: to the even 448
@example(Fraction(465), "float8_e4m3fn")
@example(Fraction(61440), "float8_e5m2")
def test_any_rational_is_rounded_to_the_nearest(value, name):
    certify(value, magnitude_bits(value, name), name)


@given(rationals)
def test_python_agrees_for_float64(value):
    try:
        expected = float(value)
    except OverflowError:
        expected = float("inf") if value > 0 else float("-inf")
    assert round_array(np.array([value], dtype=object), np.float64)[0] == expected


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20), st.sampled_from([np.float16, np.float32]))
def test_numpy_agrees_from_float64_down(values, kind):
    with np.errstate(over="ignore", under="ignore"):
        expected = np.array(values).astype(kind)
    assert (round_array(as_fractions(np.array(values), "values"), kind) == expected).all()


def test_signs_of_zero():
    tiny = Fraction(1, 2**2000)
    got = round_array(np.array([Fraction(0), tiny, -tiny], dtype=object), np.float64)
    assert (got == 0).all()
    assert np.signbit(got).tolist() == [False, False, True]


@pytest.mark.parametrize("fault", ["truncate", "ties away", "double rounding", "no subnormals", "late overflow", "e4m3fn with infinity"])
def test_planted_faults_are_caught(fault):
    """Wrong ways to round, each with a value where it differs; the certificate must refuse it."""
    form, name = FORMATS["float32"], "float8_e4m3fn" if fault == "e4m3fn with infinity" else "float32"
    value, wrong = {
        "truncate": (Fraction(7, 4) * Fraction(2) ** -23 + 1, round_to_bits(Fraction(1) + Fraction(1, 2**23), form)),
        "ties away": (Fraction(2**24 + 1), round_to_bits(Fraction(2**24 + 2), form)),
        "double rounding": (Fraction(2**24 + 1) + Fraction(1, 2**80), int(np.float32(float(2**24 + 1)).view(np.uint32))),
        "no subnormals": (Fraction(3, 2**149), 0),
        "late overflow": (Fraction(2**128 - 2**103), round_to_bits(Fraction(2**128 - 2**104), form)),
        "e4m3fn with infinity": (Fraction(500), round_to_bits(Fraction(500), FORMATS[name]._replace(infinities=True))),
    }[fault]
    with pytest.raises(AssertionError):
        certify(value, wrong, name)
    certify(value, round_to_bits(value, FORMATS[name]), name)


def test_fractions_of_every_format_are_exact():
    for name in NAMES:
        kind = dtype(name)
        values = np.array([0.0, -1.5, 2.0**-9, 96.0]).astype(kind)
        assert as_fractions(values, "x").tolist() == [Fraction(0), Fraction(-3, 2), Fraction(1, 512), Fraction(96)]
    assert as_fractions(np.array([2**62 + 1]), "x")[0] == 2**62 + 1


@pytest.mark.parametrize(("value", "error", "message"), [
    (np.array([np.nan]), ArgumentError, "`x` holds NaN or infinity"),
    (np.array([np.inf]), ArgumentError, "`x` holds NaN or infinity"),
    (np.array([1j]), DTypeError, "`x` has dtype complex128"),
    (np.array(["a"], dtype=object), DTypeError, "other things than Fractions and ints"),
])
def test_what_is_no_rational(value, error, message):
    with pytest.raises(error, match=message):
        as_fractions(value, "x")


@pytest.mark.parametrize("name", ["float8", "None", "int64", "object"])
def test_unknown_formats(name):
    with pytest.raises(DTypeError, match=rf"`out_dtype` \(='{name}'\).*must be one of {', '.join(FORMATS)}"):
        round_array(np.array([Fraction(1)], dtype=object), None if name == "None" else name)


def test_byte_order_is_the_machines():
    got = round_array(np.array([Fraction(3, 2)], dtype=object), ">f4")
    assert (got[0], got.dtype) == (1.5, np.float32)


def test_missing_ml_dtypes_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    for name in ("bfloat16", *FLOAT8):
        with pytest.raises(ImportError, match=rf"{name} needs ml_dtypes: .*npreparam\[judge\]"):
            dtype_of(name)


@given(st.lists(st.one_of(rationals, st.floats(allow_nan=False, allow_infinity=False).map(Fraction)), max_size=9))
def test_integers_over_a_common_unit_are_the_same_numbers(values):
    numbers = np.array(values, object)
    integers, unit = over_common(numbers)
    assert [type(i) for i in integers] == [int] * len(values)
    assert (integers * unit).tolist() == values


def test_a_common_unit_leaves_specials_alone():
    integers, unit = over_common(np.array([Fraction(1, 3), INF], object))
    assert (integers[0], integers[1], unit) == (1, INF, Fraction(1, 3))
