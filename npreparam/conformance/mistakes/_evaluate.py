"""What a mistake makes of arguments: in the judged format, as an implementation would, or as balls of a profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._shapes import Window, as_pair, as_sides
from npreparam.certified.bounds import Profile
from npreparam.conformance.case import Case
from npreparam.conformance.layouts import arranged
from npreparam.conformance.mistakes._ball import Ball
from npreparam.conformance.mistakes._registry import Mistake
from npreparam.conformance.mistakes._right import RIGHT, right, right_of
from npreparam.conformance.runner import quietly
from npreparam.conformance.signatures import PARAMETERS, REQUIRED
from npreparam.conformance.target import Declaration

Array = NDArray[Any]
NOT_APPLICABLE = (ValueError, TypeError, IndexError, ZeroDivisionError)  # of NumPy and the right functions, for what they do not take


def expanded(op: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments by name, defaults included; geometry as pairs and sides.

    >>> x = np.zeros((1, 1, 4, 4))
    >>> expanded("max_pool2d", {"x": x, "kernel": 2})["stride"]
    (2, 2)
    """
    found = {**{name: value for name, value in PARAMETERS[op].items() if value is not REQUIRED}, **arguments}
    if "pool" in op:
        found["stride"] = found["kernel"] if found["stride"] is None else found["stride"]
        size, kernel = found["x"].shape[2:], found["kernel"]
    elif op in ("conv2d", "conv2d_weight_grad"):
        size, kernel = found["x"].shape[2:], (found["w"].shape if "w" in found else found["weight_shape"])[2:]
    elif op == "conv2d_input_grad":
        size, kernel = tuple(found["input_shape"])[2:], found["w"].shape[2:]
    elif op == "conv_transpose2d":
        found["output_padding"] = as_pair(found["output_padding"], "output_padding", 0)
        return {**found, "stride": as_pair(found["stride"], "stride", 1), "padding": as_sides(found["padding"]),
                "dilation": as_pair(found["dilation"], "dilation", 1)}
    elif op == "log_softmax" and found["axis"] == -1:
        return {"x": found["x"]}
    else:
        return found
    window = Window.of(kernel, found["stride"], found["padding"], found.get("dilation", 1), found.get("groups", 1), size=size)
    resolved = {"kernel": window.kernel, "stride": window.stride, "padding": window.padding, "dilation": window.dilation}
    return {**found, **{name: value for name, value in resolved.items() if name in found}}


def call(mistakes: Sequence[Mistake], arguments: Mapping[str, Any], declared: Declaration | None = None) -> tuple[Any, ...]:
    """The results of one mistake, or of one with others inside, always as a tuple. Raises what NumPy raises where it does not apply."""
    outer, *inner = mistakes
    functions = right(**{outer.op: lambda **given: _single(call(inner, given, declared))}) if inner else right_of(declared)
    with quietly():
        return _as_tuple(outer.function(functions, **arguments))


def _as_tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def _single(results: tuple[Any, ...]) -> Any:
    return results if len(results) > 1 else results[0]


def wrong(mistakes: Sequence[Mistake], op: str, arguments: Mapping[str, Any], declared: Declaration | None = None) -> tuple[Array, ...]:
    """The mistaken results in the format of the arguments, which lie in memory as they do; float16 and bfloat16 by way of float32."""
    dtype = next(value.dtype for value in _arrays(arguments))
    wide = np.dtype(np.float32) if dtype.itemsize < 4 else dtype
    converted = {name: _mapped(value, lambda x: x if x.dtype == wide else x.astype(wide)) for name, value in arguments.items()}
    results = call(mistakes, expanded(op, converted), declared)
    with quietly():
        return tuple(np.array(result, dtype=dtype) for result in results)


def mistaken(mistakes: Sequence[Mistake], case: Case, declared: Declaration | None = None) -> tuple[Array, ...] | None:
    """The mistaken results of a case in its format, under the conventions declared, or None where the mistake does not apply.

    >>> from npreparam.conformance.mistakes import mistake_named
    >>> flipped = mistake_named("conv2d", "kernel flipped in width")
    >>> mistaken([flipped], flipped.case)[0].ravel()    # 1*2 + 2*1 instead of 1*1 + 2*2
    array([4.], dtype=float32)
    """
    try:
        results = wrong(mistakes, case.op, {name: arranged(value, case.layout) for name, value in case.arguments.items()}, declared)
    except NOT_APPLICABLE:
        return None
    return tuple(np.full_like(result, np.nan) for result in results) if _reads_buffer(mistakes, case) else results


def balls(mistakes: Sequence[Mistake], case: Case, profile: Profile, declared: Declaration | None = None) -> tuple[Ball, ...] | None:
    """The mistaken results of a case with the radii of a profile, or None where the mistake does not apply; of no mistakes, the right ones.

    >>> from npreparam.certified.bounds import profile_named
    >>> from npreparam.conformance.mistakes import mistake_named
    >>> flipped = mistake_named("conv2d", "kernel flipped")
    >>> (wrong,) = balls([flipped], flipped.case, profile_named("float32"))
    >>> wrong.value, bool((wrong.radius < 2.0**-20 * wrong.value).all())
    (array([[[[20.]]]]), True)
    """
    def lifted(x: Array) -> Ball:
        return Ball(arranged(x.astype(np.float64), case.layout), 0.0, profile)

    try:
        arguments = {name: _mapped(value, lifted) for name, value in expanded(case.op, case.arguments).items()}
        results = call(mistakes, arguments, declared) if mistakes else _as_tuple(getattr(right_of(declared), case.op)(**arguments))
    except NOT_APPLICABLE:
        return None
    if _reads_buffer(mistakes, case):
        results = tuple(np.full(result.shape, np.nan) for result in results)
    return tuple(result if isinstance(result, Ball) else Ball(result, 0.0, profile) for result in results)


def outermost(mistake: Mistake, case: Case) -> bool:
    """Whether it calls the right function for a case, so that another mistake may be inside."""
    asked = []

    def spy(**given: Any) -> Any:
        asked.append(given)
        return getattr(RIGHT, case.op)(**given)

    try:
        with quietly():
            mistake.function(right(**{case.op: spy}), **expanded(case.op, case.arguments))
    except NOT_APPLICABLE:
        return False
    return bool(asked)


def _reads_buffer(mistakes: Sequence[Mistake], case: Case) -> bool:
    """Whether the NaN that the judge filled the result's buffer with comes through."""
    return case.relation == "prefilled" and any(mistake.relation == "prefilled" for mistake in mistakes)


def _arrays(arguments: Mapping[str, Any]) -> list[Array]:
    parts = [part for value in arguments.values() for part in (value if isinstance(value, tuple) else (value,))]
    return [part for part in parts if isinstance(part, np.ndarray) and part.dtype.kind not in "iub"]


def _mapped(value: Any, change: Any) -> Any:
    """An argument with its float arrays, and those in a tuple, changed."""
    if isinstance(value, tuple):
        return tuple(_mapped(part, change) for part in value)
    return change(value) if isinstance(value, np.ndarray) and value.dtype.kind not in "iub" else value
