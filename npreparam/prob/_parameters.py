"""Parameters and arguments of distributions: numbers become arrays, dtypes agree, and each value meets its rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam import ops
from npreparam._errors import ArgumentError, DTypeError, ShapeError
from npreparam.ops._validate import as_array, is_number
from npreparam.tape.tensor import Tensor, value_of

Array = NDArray[Any]
Parameter = Any  # an array or a Tensor


@dataclass(frozen=True, slots=True)
class Rule:
    """A set of admissible values: its words, the elementwise (or whole-array) test, and how many last axes one value has."""

    words: str
    test: Callable[[Array], Any]
    axes: int = 0


def _rows_sum_to_one(x: Array) -> Any:
    """Sums of n rounded probabilities are off by n*u at most, and by as much again when added up."""
    return (x >= 0).all(-1) & (np.abs(x.sum(-1, dtype=np.float64) - 1) <= 2 * max(x.shape[-1], 1) * np.finfo(x.dtype).eps)


def _positive_diagonal(x: Array) -> Any:
    return (np.triu(x, 1) == 0).all((-2, -1)) & (np.diagonal(x, axis1=-2, axis2=-1) > 0).all(-1)


def _positive_definite(x: Array) -> Any:
    if not (x == np.swapaxes(x, -1, -2)).all():
        return np.False_
    try:
        np.linalg.cholesky(x)
    except np.linalg.LinAlgError:
        return np.False_
    return np.True_


REAL = Rule("finite", np.isfinite)
POSITIVE = Rule("finite and positive", lambda x: (x > 0) & np.isfinite(x))
NON_NEGATIVE = Rule("finite and not negative", lambda x: (x >= 0) & np.isfinite(x))
UNIT_INTERVAL = Rule("between 0 and 1", lambda x: (x >= 0) & (x <= 1))
BINARY = Rule("0 or 1", lambda x: (x == 0) | (x == 1))
ANGLE = Rule("an angle in [-pi, pi]", lambda x: np.abs(x) <= np.pi)
LOGIT = Rule("no NaN", lambda x: ~np.isnan(x))
VECTOR = Rule("finite", lambda x: np.isfinite(x).all(-1), 1)
POSITIVE_VECTOR = Rule("finite and positive", lambda x: ((x > 0) & np.isfinite(x)).all(-1), 1)
SIMPLEX = Rule("not negative, with sum 1 along the last axis", _rows_sum_to_one, 1)
LOGITS = Rule("without NaN or +inf, and not -inf alone, along the last axis",
              lambda x: (x < np.inf).all(-1) & (x > -np.inf).any(-1), 1)
LOWER_TRIANGULAR = Rule("lower triangular with a positive diagonal", lambda x: np.isfinite(x).all((-2, -1)) & _positive_diagonal(x), 2)
POSITIVE_DEFINITE = Rule("finite, symmetric and positive definite", lambda x: np.isfinite(x).all() and _positive_definite(x), 2)
MATRIX = Rule("finite", lambda x: np.isfinite(x).all((-2, -1)), 2)


def check_rule(value: Array, name: str, rule: Rule, where: str = "") -> None:
    """Raise ArgumentError that shows the first value outside the rule."""
    if value.ndim < rule.axes:
        raise ShapeError(f"`{name}` has shape {value.shape}, but must have at least {rule.axes} axes")
    good = np.asarray(rule.test(value))
    if good.all():
        return
    first = value[np.unravel_index(np.argmin(good), good.shape)] if good.ndim else value
    shown = np.array2string(np.asarray(first), threshold=12, max_line_width=10**6).replace("\n", "")
    raise ArgumentError(f"`{name}` (={shown}) must be {rule.words}{where}")


def as_parameters(**parameters: tuple[Any, Rule]) -> dict[str, Parameter]:
    """Arrays or Tensors of one dtype, each within its rule; numbers and lists take the dtype of the arrays beside them, else float64."""
    given = {name: value for name, (value, _) in parameters.items()}
    dtypes = {name: value.dtype for name, value in given.items() if hasattr(value, "dtype")}
    if len(set(dtypes.values())) > 1:
        told = ", ".join(f"`{name}` {dtype}" for name, dtype in dtypes.items())
        raise DTypeError(f"all parameters must have the same dtype, got {told}; convert with .astype")
    dtype = next(iter(dtypes.values()), np.dtype(np.float64))
    made = {name: as_value(value, name, dtype) for name, value in given.items()}
    for name, (_, rule) in parameters.items():
        check_rule(value_of(made[name]), name, rule)
    return made


def as_value(value: Any, name: str, dtype: np.dtype[Any]) -> Parameter:
    """A Tensor as it is; an array checked; numbers and lists of numbers as an array of `dtype`."""
    if isinstance(value, Tensor):
        return value
    if is_number(value) or isinstance(value, list | tuple):
        try:
            return np.asarray(value, dtype)
        except (TypeError, ValueError):
            raise DTypeError(f"`{name}` (={value!r}) must hold numbers") from None
    return as_array(value, name)


def batch_shape_of(parameters: dict[str, tuple[Parameter, int]]) -> tuple[int, ...]:
    """The parameters' shapes without their event axes, broadcast together."""
    shapes = {name: value.shape[: len(value.shape) - axes] for name, (value, axes) in parameters.items()}
    try:
        return np.broadcast_shapes(*shapes.values())
    except ValueError:
        told = ", ".join(f"`{name}` {shape}" for name, shape in shapes.items())
        raise ShapeError(f"shapes of {told} do not broadcast together") from None


def open_interval(u: Array) -> Array:
    """Uniform noise with 0 and 1 moved to the nearest inside: the smallest normal number, and 1 - u (the unit roundoff)."""
    limits = np.finfo(u.dtype)
    return np.clip(u, limits.tiny, 1 - limits.epsneg)


def uniform_noise(shape: tuple[int, ...], rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    """Uniform on the midpoints (k + 1/2)/2^p, p one bit short of the significand: exact in dtype, never 0 or 1, symmetric about 1/2."""
    bits = np.finfo(dtype).nmant
    return ((rng.integers(0, 2**bits, shape) + 0.5) * 2.0**-bits).astype(dtype)


def expanded(value: Parameter, shape: tuple[int, ...]) -> Parameter:
    """A parameter repeated to a shape; an array is copied, so that the caller may change it."""
    return ops.broadcast_to(value, shape) if isinstance(value, Tensor) else np.array(np.broadcast_to(value, shape))
