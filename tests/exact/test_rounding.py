"""Rounding judged by certificate: between the two halfway points around the answer, ties to even; never by rounding again."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from npreparam import ArgumentError, DTypeError
from npreparam.exact import as_fractions, round_array
from npreparam.exact.rounding import FORMATS, dtype_of, round_to_bits

NAMES = ["float16", "float32", "float64", "bfloat16"]


def dtype(name):
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    return dtype_of(name)


def certify(value, bits, name):
    """`bits` are the magnitude bits of the rounding of |value|: it lies between the two halfway points, on one only if even."""
    form, value = FORMATS[name], abs(value)
    top = (form.e_max - form.e_min + 2) << (form.precision - 1)  # infinity, which stands for the next power of two here

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


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_finite_value_and_every_midpoint_exhaustive(name):
    kind = dtype(name)
    values = np.arange(1 << 15, dtype=np.uint16).view(kind)
    finite = [Fraction(float(v)) for v in values if np.isfinite(np.float64(v))]
    assert len(finite) in (31 * 1024, 255 * 128)
    for i, value in enumerate(finite):
        assert round_to_bits(value, FORMATS[name]) == i
        if i + 1 < len(finite):
            middle, nudge = (value + finite[i + 1]) / 2, Fraction(1, 2**200)
            assert round_to_bits(middle, FORMATS[name]) == i + i % 2  # ties to even
            assert round_to_bits(middle - nudge, FORMATS[name]) == i
            assert round_to_bits(middle + nudge, FORMATS[name]) == i + 1


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_all_65536_patterns_return_exhaustive(name):
    """Through Fraction and back, bit for bit; only the sign of a zero is lost, and what is no number is refused."""
    values = np.arange(1 << 16, dtype=np.uint16).view(dtype(name))
    with np.errstate(invalid="ignore"):  # signalling NaN
        number = np.isfinite(values.astype(np.float64))
    back = round_array(as_fractions(values[number], "values"), name)
    expected = np.where(values[number] == 0, 0, values[number].view(np.uint16))
    assert (back.view(np.uint16) == expected).all()
    for value in values[~number]:
        with pytest.raises(ArgumentError, match="NaN or infinity"):
            as_fractions(value, "x")


numerators, denominators = st.integers(-2**70, 2**70), st.integers(1, 2**70)
rationals = st.builds(lambda n, d, e: Fraction(n, d) * Fraction(2) ** e, numerators, denominators, st.integers(-1200, 1100))


@given(rationals, st.sampled_from(list(FORMATS)))
@example(Fraction(2**24 + 1), "float32")  # a tie
@example(Fraction(2**24 + 1) + Fraction(1, 2**80), "float32")  # just above: rounding to float64 first would lose it
@example(Fraction(1, 2**150), "float32")  # half the smallest subnormal: to zero
@example(Fraction(2**128 - 2**103), "float32")  # the midpoint to overflow: to infinity
@example(Fraction(2**1024 - 2**970), "float64")
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


@pytest.mark.parametrize("fault", ["truncate", "ties away", "double rounding", "no subnormals", "late overflow"])
def test_planted_faults_are_caught(fault):
    """Wrong ways to round, each with a value where it differs; the certificate must refuse it."""
    form = FORMATS["float32"]
    value, wrong = {
        "truncate": (Fraction(7, 4) * Fraction(2) ** -23 + 1, round_to_bits(Fraction(1) + Fraction(1, 2**23), form)),
        "ties away": (Fraction(2**24 + 1), round_to_bits(Fraction(2**24 + 2), form)),
        "double rounding": (Fraction(2**24 + 1) + Fraction(1, 2**80), int(np.float32(float(2**24 + 1)).view(np.uint32))),
        "no subnormals": (Fraction(3, 2**149), 0),
        "late overflow": (Fraction(2**128 - 2**103), round_to_bits(Fraction(2**128 - 2**104), form)),
    }[fault]
    with pytest.raises(AssertionError):
        certify(value, wrong, "float32")
    certify(value, round_to_bits(value, form), "float32")


def test_fractions_of_every_format_are_exact():
    for name in NAMES:
        kind = dtype(name)
        values = np.array([0.0, -1.5, 2.0**-10, 96.0]).astype(kind)
        assert as_fractions(values, "x").tolist() == [Fraction(0), Fraction(-3, 2), Fraction(1, 1024), Fraction(96)]
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
    with pytest.raises(DTypeError, match=rf"`out_dtype` \(='{name}'\).*must be one of float16, bfloat16, float32, float64"):
        round_array(np.array([Fraction(1)], dtype=object), None if name == "None" else name)


def test_byte_order_is_the_machines():
    got = round_array(np.array([Fraction(3, 2)], dtype=object), ">f4")
    assert (got[0], got.dtype) == (1.5, np.float32)


def test_missing_ml_dtypes_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match=r"npreparam\[judge\]"):
        dtype_of("bfloat16")
