"""Profiles: their fields, and the few numbers all bounds are built of, against rational arithmetic."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError
from npreparam.certified import bounds
from npreparam.certified.bounds import FLOAT16_FLOAT32, FLOAT32, FLOAT64, PROFILES, TF32, Profile, profile_named
from npreparam.certified.bounds._majorant import as_finite, up
from npreparam.certified.bounds.profile import FORMATS, is_value_of, largest, smallest, smallest_normal, unit
from tests.certified.simulate import DTYPES, rounded


@pytest.mark.parametrize(("fields", "message"), [
    ({"input_rounding": "float8"}, r"`input_rounding` \(='float8'\) must be one of 'float16', 'bfloat16', 'float32', 'float64', 'tf32'"),
    ({"accumulator": "tf32"}, r"`accumulator` \(='tf32'\)"), ({"output": None}, r"`output` \(=None\)"),
    ({"order": 0}, r"`order` \(=0\) must be a positive block length or one of 'any'"), ({"order": True}, r"`order` \(=True\)"),
    ({"algorithm": "winograd"}, r"`algorithm` \(='winograd'\)"), ({"flush_to_zero": 2}, r"`flush_to_zero` \(=2\)")])
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ArgumentError, match=message):
        Profile(**fields)


def test_profiles_are_values_with_names():
    assert list(PROFILES) == ["FLOAT32", "FLOAT64", "TF32", "BFLOAT16_FLOAT32", "FLOAT16_FLOAT32", "FLOAT16_FLOAT16", "WINOGRAD_F2_3",
                              "WINOGRAD_F4_3", "WINOGRAD_F6_3", "FFT_FLOAT32"]
    assert all(profile_named(name.lower()) is profile for name, profile in PROFILES.items())
    assert repr(TF32) == ("Profile(input_rounding='tf32', accumulator='float32', order='tensor_core', algorithm='direct', output='float32', "
                          "flush_to_zero=False)")
    assert Profile() == FLOAT32
    with pytest.raises(dataclasses.FrozenInstanceError):
        FLOAT32.order = "pairwise"
    with pytest.raises(ArgumentError, match=r"`profile` \(='int8'\) must be one of FLOAT32"):
        profile_named("int8")


def test_formats_are_those_of_the_dtypes():
    import ml_dtypes
    for name, dtype in DTYPES.items():
        info = ml_dtypes.finfo(dtype)
        values = float(info.eps) / 2, float(info.smallest_subnormal), float(info.smallest_normal), float(info.max)
        assert values == (unit(name), smallest(name), smallest_normal(name), largest(name))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_number_of_a_format_is_one_and_every_midpoint_is_not(name):
    with np.errstate(invalid="ignore"):  # signalling NaNs are among them
        values = np.arange(2**16, dtype=np.uint16).view(DTYPES[name]).astype(np.float64)
    values = np.unique(values[np.isfinite(values)])
    assert is_value_of(values, name).all()
    assert not is_value_of((values[1:] + values[:-1]) / 2, name).any()
    assert not is_value_of(np.array([2 * values[-1]]), name).any()


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(sorted(FORMATS)))
def test_numbers_of_a_format_are_those_that_rounding_leaves(x, name):
    with np.errstate(all="ignore"):
        kept = rounded(np.array([x]), name)[0] == x
    assert bool(is_value_of(np.array([x]), name)[0]) == kept


@given(st.floats(0, 1e300), st.integers(0, 10**6))
def test_up_outweighs_so_many_roundings(v, n):
    """v >= exact*(1 - 2^-53)^n - n*2^-1074 for every exact number up to up(v, n); and it is not far above."""
    raised = Fraction(float(up(v, n)))
    if v == 0:
        assert raised == 0
        return
    u, eta = Fraction(1, 2**53), Fraction(1, 2**1074)
    loss = 1 - n * u + Fraction(n * (n - 1), 2) * u**2  # at least (1 - u)^n (Bonferroni)
    assert raised * loss - n * eta >= Fraction(v) * (1 - n**3 * u**3)
    assert raised <= (Fraction(v) + (n + 2) * eta) * (1 + (3 * n + 9) * u)


def test_up_is_infinite_where_nothing_is_known():
    assert up([np.inf, np.nan, 0.0]).tolist() == [np.inf, np.inf, 0]


@given(st.integers(0, 3000), st.sampled_from([FLOAT32, TF32, Profile("float16", "float16", "pairwise", output="float16")]))
def test_compound_growth_is_that_of_the_theorem(k, profile):
    u = Fraction(profile.unit)
    exact = 1 / (1 - u) ** k - 1
    got = Fraction(float(up(profile.compound(k))))
    assert exact <= got <= exact * (1 + Fraction(1, 2**40))
    if k * u < 1:
        assert exact <= k * u / (1 - k * u)


def test_roundings_of_orders():
    """By hand: 8 terms in any order 8; a balanced tree of 8 has depth 3; blocks of 3 of 8 terms: 3 products' sums (1 + 2), then 2 more."""
    orders = {"any": 8, "pairwise": 4, 3: 5, 1: 8, 8: 8, 100: 8, "tensor_core": 16}
    assert {order: float(Profile(order=order).roundings(8)) for order in orders} == orders
    assert float(Profile(order="pairwise").roundings(2, 1024)) == 2  # two terms anywhere among zeros meet once
    assert float(Profile(order=4).roundings(8, 64, more=1)) == 9
    assert TF32.growth(1000) > 2000 * 2.0**-23
    assert FLOAT32.growth(1000) == 1000 * 2.0**-24
    assert dataclasses.replace(FLOAT32, flush_to_zero=True).growth(1000) > 1000 * 2.0**-24


def test_what_may_be_rounded_and_what_may_not():
    x = np.array([1.0, 1 + 2.0**-11, 2.0**-25, 1e5, 2.0**-24])
    assert FLOAT16_FLOAT32.operand(x, "x")[1].tolist() == [0, 2.0**-11 * x[1] + 2.0**-24, 2.0**-36 + 2.0**-24, np.inf, 0]
    assert FLOAT16_FLOAT32.addend(x, "x")[1].tolist() == [0, 0, 0, 0, 0]
    flushed = dataclasses.replace(FLOAT16_FLOAT32, flush_to_zero=True)
    assert flushed.operand(x, "x")[1].tolist() == [0, 2.0**-11 * x[1] + 2.0**-24, x[2], np.inf, x[4]]
    with pytest.raises(ArgumentError, match="`x` holds numbers that are no float32 numbers, the profile's accumulator; round them first"):
        FLOAT32.parameter(np.array([0.1]), "x")


def test_integers_are_numbers_while_float64_holds_them():
    assert as_finite(np.array([3, -4]), "x").tolist() == [3, -4]
    with pytest.raises(ArgumentError, match=r"`x` holds integers of 2\^53 or more"):
        as_finite(np.array([2**53]), "x")


def test_the_profile_is_given_by_value_by_name_or_by_the_operand():
    x, w = np.ones((1, 3)), np.ones((2, 3))
    for dtype, profile in ((np.float64, FLOAT64), (np.float32, FLOAT32), (np.float16, PROFILES["FLOAT16_FLOAT32"]), (np.int64, FLOAT32)):
        assert (bounds.linear_bound(x.astype(dtype), w.astype(dtype)) == bounds.linear_bound(x, w, profile=profile)).all()
    assert (bounds.linear_bound(x, w, profile="tf32") == bounds.linear_bound(x, w, None, TF32)).all()
    assert bounds.likely("float32", 5.0) == bounds.likely(FLOAT32, 5.0)
    for bad in (3, x):
        with pytest.raises(ArgumentError, match=r"`profile` .* must be a Profile or the name of one: FLOAT32"):
            bounds.linear_bound(x, w, profile=bad)
