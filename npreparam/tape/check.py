"""A numerical check of gradients whose tolerance is estimated, not chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npreparam import ops
from npreparam._errors import ArgumentError, DTypeError
from npreparam.tape.grad import grad
from npreparam.tape.tensor import Tensor, value_of

STEP = 2.0**-10  # of the central differences; a power of two, so that x + h*t loses little
SAFETY = 8.0  # on the two error estimates, which are estimates
UNIT = 2.0**-53


def check_grads(f: Callable[..., Any], args: Sequence[Any], order: int = 2, rng: np.random.Generator | int = 0) -> None:
    """Compare the gradients of f with central differences, along random directions, for orders 1 to `order`.

    For random cotangent g and tangents t, with phi(h) = <g, f(x + h*t)> and D(h) = (phi(h) - phi(-h)) / 2h:

        |<grad f, t> - D(h)| <= SAFETY * (truncation + rounding)
        truncation = |D(h) - D(2h)|                       (D(h) - D(2h) = -h^2*phi'''/2 + ..., three times the error of D(h))
        rounding   = n*u*(sum |g||f| + sum |grad f||x| + sum |g|) / h     with n elements in x and f together

    All arguments are float64 arrays; f returns a Tensor or a tuple of Tensors. Order k+1 checks the gradient of order k as a function itself,
    of the arguments and of the cotangent, so that rules for both are met.

    Raises AssertionError naming the order, the argument and both numbers.

    >>> check_grads(lambda x: x * x, [np.array([1.0, 2.0])])
    """
    rng = np.random.default_rng(rng) if isinstance(rng, int) else rng
    values = [np.asarray(value_of(a)) for a in args]
    if any(v.dtype != np.float64 for v in values):
        raise DTypeError(f"`args` have dtypes {[str(v.dtype) for v in values]}, but differences need float64")
    if order < 1:
        raise ArgumentError(f"`order` (={order}) must be at least 1")
    _check(_one_output(f), values, 1, order, rng)


def _one_output(f: Callable[..., Any]) -> Callable[..., Tensor]:
    """f with a tuple of outputs joined into one vector."""
    def joined(*args: Any) -> Any:
        y = f(*args)
        return ops.concat([ops.reshape(part, (-1,)) for part in y if isinstance(part, Tensor)]) if isinstance(y, tuple) else y

    return joined


def _check(f: Callable[..., Tensor], values: list[Any], order: int, last: int, rng: np.random.Generator) -> None:
    tensors = [Tensor(v, name=f"argument {i}") for i, v in enumerate(values)]
    output = f(*tensors)
    if not isinstance(output, Tensor):
        raise AssertionError(f"order {order}: the function does not depend on its arguments through differentiable operations")
    g = rng.standard_normal(output.shape)
    gradients = grad(output, tensors, g, allow_unused=True)
    for i, (v, gradient) in enumerate(zip(values, gradients, strict=True)):
        _compare(f, values, i, g, gradient, rng.standard_normal(v.shape), output.value, order)
    if order < last:
        def gradient_of(*args: Any) -> Tensor:
            *xs, cotangent = args
            pulled = grad(f(*xs), list(xs), cotangent, create_graph=True, allow_unused=True)
            return ops.concat([ops.reshape(p, (-1,)) for p in pulled])

        _check(gradient_of, [*values, g], order + 1, last, rng)


@np.errstate(over="ignore", invalid="ignore")  # what is not finite fails the comparison
def _compare(f: Callable[..., Tensor], values: list[Any], i: int, g: Any, gradient: Any, tangent: Any, output: Any, order: int) -> None:
    def phi(h: float) -> float:
        moved = [Tensor(v + h * tangent if j == i else v) for j, v in enumerate(values)]
        return float(np.sum(g * f(*moved).value))

    near, far = ((phi(h) - phi(-h)) / (2 * h) for h in (STEP, 2 * STEP))
    claimed = float(np.sum(gradient * tangent))
    count = values[i].size + output.size
    rounding = count * UNIT * (np.sum(np.abs(g * output)) + np.sum(np.abs(gradient * values[i])) + np.sum(np.abs(g))) / STEP
    allowed = SAFETY * (abs(near - far) + rounding)
    if not abs(claimed - near) <= allowed < np.inf:
        raise AssertionError(f"order {order}, argument {i}: the gradient along a random direction is {claimed!r}, "
                             f"central differences give {near!r}; error = {abs(claimed - near):.3g}; permitted error = {allowed:.3g}")
