"""Which other arithmetic would explain a result that the declared one does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ArgumentError
from npreparam.certified import bounds
from npreparam.certified.bounds import Profile
from npreparam.certified.bounds.profile import FORMATS, is_value_of, largest, unit
from npreparam.conformance.case import Case
from npreparam.conformance.grade import within
from npreparam.conformance.target import Declaration
from npreparam.conformance.truth import Truth, around, truths, try_bound

Array = NDArray[Any]
ROUNDED = {"float32": "float32 inputs", "tf32": "TF32 inputs", "float16": "float16 inputs", "bfloat16": "bfloat16 inputs"}  # from tight to wide
ALGORITHMS = {"winograd_f2_3": "Winograd F(2,3)", "winograd_f4_3": "Winograd F(4,3)", "winograd_f6_3": "Winograd F(6,3)",
              "float32": "float32 sums", "fft_float32": "a fast Fourier transform", "tf32": "TF32 tensor cores", "float16_float16": "float16 sums",
              "bfloat16_float32": "bfloat16 operands, rounded somehow"}
SUMS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad", "conv_transpose2d", "linear")  # what transforms and tensor cores are made for
ELEMENTWISE = ("float32", "float16_float16")  # the only arithmetic that makes sense for the other functions


def explaining_profile(case: Case, outputs: tuple[Array, ...], found: tuple[Truth, ...], declaration: Declaration, profile: Profile) -> str:
    """In words, the arithmetic that explains all results, or "".

    First operands rounded to nearest to a coarser format (see `coarser_operands`): then the results lie within the declared bound of the truth
    for *those* operands. Else the ready-made profile with the smallest bounds around the truth within which they lie.
    """
    if name := next(explaining_operands(case, outputs, declaration, profile), ""):
        return name
    fits = []
    for name, limits in _other_bounds(case, declaration, profile):
        if any((np.isinf(limit) & np.isfinite(truth.bound)).any() for limit, truth in zip(limits, found, strict=True)):
            continue
        limits = around(tuple(truth.value for truth in found), limits)
        wider = tuple(truth._replace(bound=limit, likely=limit) for truth, limit in zip(found, limits, strict=True))
        if within(outputs, wider):
            fits.append((sum(float(np.sum(limit)) for limit in limits), len(fits), name))
    return min(fits)[2] if fits else ""


def explaining_operands(case: Case, outputs: tuple[Array, ...], declaration: Declaration, profile: Profile) -> Iterator[str]:
    """In words, the coarser operands of which the right function gives these results."""
    return (words for words, other in coarser_operands(case) if within(outputs, _truths(other, declaration, profile)))


def coarser_operands(case: Case) -> Iterator[tuple[str, Case]]:
    """The case with all operands rounded, from tight to wide; then, for sums of products, with one of them rounded.

    >>> case = Case("linear", {"x": np.float32([[1 + 2**-9]]), "w": np.float32([[1 - 2**-10]])})
    >>> [words for words, _ in coarser_operands(case)]
    ['bfloat16 inputs', 'bfloat16 values of `x` alone', 'bfloat16 values of `w` alone']
    """
    for form, words in ROUNDED.items():
        if (other := rounded_operands(case, form)) is not None:
            yield words, other
    for form, words in ROUNDED.items():
        for name in case.arrays() if case.op in SUMS else ():
            if (other := rounded_operands(case, form, (name,))) is not None:
                yield f"{words.replace('inputs', 'values')} of `{name}` alone", other


def rounded_operands(case: Case, form: str, names: Container[str] = ()) -> Case | None:
    """The case with its float arrays, or those of some names, rounded to nearest to a format; None where that changes nothing, or overflows.

    >>> case = Case("tanh", {"x": np.float32([1 + 2**-9])})
    >>> rounded_operands(case, "bfloat16").arguments["x"], rounded_operands(case, "tf32")
    (array([1.], dtype=float32), None)
    """
    def rounded(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(rounded, value))
        return value if not isinstance(value, np.ndarray) or value.dtype.kind in "iub" else _to_format(value, form)

    numbers = [array.astype(np.float64) for name, array in case.arrays().items() if not names or name in names]
    if all(is_value_of(array, form).all() for array in numbers):
        return None
    if any(np.abs(array[np.isfinite(array)]).max(initial=0) > largest(form) for array in numbers):
        return None
    arguments = {name: rounded(value) if not names or name in names else value for name, value in case.arguments.items()}
    return dataclasses.replace(case, arguments=arguments, exact=False)


def _to_format(value: Array, form: str) -> Array:
    wide, rule = value.astype(np.float64), FORMATS[form]
    with np.errstate(all="ignore"):
        spacing = np.maximum(np.frexp(wide)[1] - 1, rule.e_min) - rule.precision + 1
        return np.where(np.isfinite(wide), np.ldexp(np.rint(np.ldexp(wide, -spacing)), spacing), wide).astype(value.dtype)


def _truths(case: Case, declaration: Declaration, profile: Profile) -> tuple[Truth, ...]:
    """Of operands that may have become none (a variance rounded to 0): nothing then."""
    try:
        return truths(case, declaration, profile)
    except ArgumentError:
        return ()


def _other_bounds(case: Case, declaration: Declaration, profile: Profile) -> list[tuple[str, tuple[Array, ...]]]:
    candidates = [("subnormal numbers flushed to zero", dataclasses.replace(profile, flush_to_zero=True), declaration),
                  ("one-pass variance", profile, dataclasses.replace(declaration, variance="one_pass"))]
    for name, words in ALGORITHMS.items():
        if case.op not in SUMS and name not in ELEMENTWISE:
            continue
        other = dataclasses.replace(bounds.PROFILES[name.upper()], output=profile.output)
        coarser = unit(other.accumulator) >= unit(profile.accumulator) and unit(other.input_rounding) >= unit(profile.input_rounding)
        if other != profile and coarser and (not case.exact or other.algorithm != "direct"):
            candidates.append((words, other, declaration))
    found = [(name, try_bound(case.op, case.arguments, other, declared)) for name, other, declared in candidates]
    return [(name, limits) for name, limits in found if limits is not None]
