"""A numerical check of gradients whose tolerance is estimated, not chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npreparam import ops
from npreparam._errors import ArgumentError, DTypeError
from npreparam.tape.grad import grad
from npreparam.tape.tensor import Tensor, value_of

STEPS = tuple(2.0**-k for k in range(10, 31, 4))  # of the central differences; powers of two, so that x + h*t loses little
RESOLUTION = 2.0**-12  # what share of a gradient may be wrong unseen
SAFETY = 8.0  # on the two error estimates, which are estimates
UNIT = 2.0**-53


def check_grads(f: Callable[..., Any], args: Sequence[Any], order: int = 2, rng: np.random.Generator | int = 0) -> None:
    """Compare the gradients of f with central differences, along random directions, for orders 1 to `order`.

    For random cotangent g and tangents t, with phi(h) = <g, f(x + h*t)> and D(h) = (phi(h) - phi(-h)) / 2h:

        |<grad f, t> - D(h)| <= SAFETY * (truncation + rounding)
        truncation = |D(h) - D(2h)|                      (= |h^2*phi'''/2 + ...|, three times the error of D(h))
        rounding   = n*u*(sum |g||f| + sum |grad f||x| + sum |g|) / h    with n elements in x and f together

    h is the first of 2^-10, 2^-14, ... 2^-30 for which the truncation hides less than 2^-12 of the gradient or less than the rounding.
    So a rule that is wrong by 0.05 % is seen, near a kink or a pole too; where no step settles, the check fails instead of passing.

    All arguments are float64 arrays; f returns a Tensor or a tuple of Tensors. Order k+1 checks the gradient of order k as a function
    itself, of the arguments and of the cotangent, so that rules for both are met.

    Raises AssertionError naming the order, the argument and both numbers.

    >>> check_grads(lambda x: x * x, [np.array([1.0, 2.0])])
    """
    rng = np.random.default_rng(rng) if isinstance(rng, int) else rng
    values = [np.asarray(value_of(a)) for a in args]
    if any(v.dtype != np.float64 for v in values):
        raise DTypeError(f"`args` have dtypes {[str(v.dtype) for v in values]}, but differences need float64")
    if order < 1:
        raise ArgumentError(f"`order` (={order}) must be at least 1")
    labels = [f"argument {i}" for i in range(len(values))]
    f = _one_output(f)
    for k in range(1, order + 1):
        g = _check(f, values, [f"order {k}, {label}" for label in labels], rng)
        f, values, labels = _gradient_of(f), [*values, g], [*labels, f"cotangent of order {k}"]


def _one_output(f: Callable[..., Any]) -> Callable[..., Tensor]:
    """f with a tuple of outputs joined into one vector."""
    def joined(*args: Any) -> Any:
        y = f(*args)
        return ops.concat([ops.reshape(part, (-1,)) for part in y if isinstance(part, Tensor)]) if isinstance(y, tuple) else y

    return joined


def _gradient_of(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """(x, ..., g) -> g^T (df/dx) for all x, joined into one vector."""
    def gradient(*args: Any) -> Tensor:
        *xs, g = args
        return ops.concat([ops.reshape(p, (-1,)) for p in grad(f(*xs), xs, g, create_graph=True, allow_unused=True)])

    return gradient


def _check(f: Callable[..., Tensor], values: list[Any], labels: list[str], rng: np.random.Generator) -> Any:
    """Check the gradient with respect to every argument; the random cotangent that was used."""
    tensors = [Tensor(value, label) for value, label in zip(values, labels, strict=True)]
    output = f(*tensors)
    if not isinstance(output, Tensor):
        raise AssertionError(f"{', '.join(labels)}: the function does not depend on its arguments through differentiable operations")
    g = rng.standard_normal(output.shape)
    for i, gradient in enumerate(grad(output, tensors, g, allow_unused=True)):
        tangent, x = rng.standard_normal(gradient.shape), values[i]
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite fails the comparison
            noise = (x.size + output.size) * UNIT * (np.abs(g * output.value).sum() + np.abs(gradient * x).sum() + np.abs(g).sum())
            _compare(_along(f, values, i, tangent, g), gradient * tangent, noise, labels[i])
    return g


def _along(f: Callable[..., Tensor], values: list[Any], i: int, tangent: Any, g: Any) -> Callable[[float], float]:
    """phi(h) = <g, f(x + h*t)>, where only argument i moves."""
    def phi(h: float) -> float:
        return float(np.sum(g * f(*[Tensor(v + h * tangent if j == i else v) for j, v in enumerate(values)]).value))

    return phi


def _compare(phi: Callable[[float], float], terms: Any, noise: float, label: str) -> None:
    """Compare the claimed derivative, the sum of `terms`, with differences of phi, whose values are uncertain by `noise`."""
    claimed = float(np.sum(terms))
    for h in STEPS:
        near, far = ((phi(step) - phi(-step)) / (2 * step) for step in (h, 2 * h))
        truncation, rounding = abs(near - far), noise / h
        if SAFETY * truncation <= max(RESOLUTION * max(np.abs(terms).sum(), abs(near)), SAFETY * rounding):
            break
    else:
        raise AssertionError(f"{label}: central differences do not settle, the last is {near!r} after {far!r} (a kink, a pole or noise at "
                             f"this point); the gradient along a random direction is {claimed!r}")
    allowed = SAFETY * (truncation + rounding)
    if not abs(claimed - near) <= allowed < np.inf:
        raise AssertionError(f"{label}: the gradient along a random direction is {claimed!r}, central differences give {near!r}; "
                             f"error = {abs(claimed - near):.3g}; permitted error = {allowed:.3g}")
