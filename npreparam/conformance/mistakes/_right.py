"""The right functions as mistakes call them: over arrays by `npreparam.ops`, over `Ball`s with the sound bounds of their profile as radii.

Convolutions and their gradients also take an image or a gradient of a size that does not belong to the geometry: what lies outside is zero,
what is too much is cut off. So does a loop nest that is given the wrong numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from npreparam import fuse, ops
from npreparam._errors import ArgumentError
from npreparam._shapes import Pair, Sides, extent
from npreparam.certified.bounds import Profile
from npreparam.conformance.mistakes._ball import Ball
from npreparam.conformance.signatures import OPS, PARAMETERS, outputs_of
from npreparam.conformance.target import Declaration
from npreparam.conformance.truth import bound

BILINEAR = {"conv2d": ("x", "w"), "conv2d_input_grad": ("gy", "w"), "conv2d_weight_grad": ("gy", "x"), "conv_transpose2d": ("x", "w"),
            "linear": ("x", "w")}


def apply(op: str, **arguments: Any) -> Any:
    """A right function of valid arguments, by name: arrays, or Balls, of which only those of bilinear functions may have radii."""
    function = getattr(fuse if op.startswith("fuse") else ops, op)
    profile = next((value.profile for value in _flat(arguments) if isinstance(value, Ball)), None)
    if profile is None:
        return function(**arguments)
    middle = {name: _middle(value) for name, value in arguments.items()}
    values, radii = function(**middle), _bound(op, middle, profile)
    if any(value.radius.any() for value in _flat(arguments) if isinstance(value, Ball)):
        radii = (radii[0] + _spread(op, arguments, middle, function),)
    if len(outputs_of(op, middle)) == 1:
        return Ball(values, radii[0], profile)
    return tuple(Ball(*row, profile) for row in zip(values, radii, strict=True))


def _flat(arguments: dict[str, Any]) -> list[Any]:
    return [part for value in arguments.values() for part in (value if isinstance(value, tuple) else (value,))]


def _middle(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_middle, value))
    return value.value if isinstance(value, Ball) else value


def _bound(op: str, arguments: dict[str, Any], profile: Profile) -> tuple[Any, ...]:
    try:
        return bound(op, arguments, profile)
    except ArgumentError:  # an algorithm that does not have this geometry
        return bound(op, arguments, dataclasses.replace(profile, algorithm="direct"))


def _spread(op: str, arguments: dict[str, Any], middle: dict[str, Any], function: Callable[..., Any]) -> Any:
    """|a|*rb + ra*(|b| + rb) for a function bilinear in a and b."""
    if op not in BILINEAR:
        raise ArgumentError(f"radii do not pass through {op}")
    a, b = (arguments[name] for name in BILINEAR[op])
    rest = {name: value for name, value in middle.items() if name not in (*BILINEAR[op], "b")}
    first, second = BILINEAR[op]
    of_b = function(**{first: np.abs(_middle(a)), second: _radius(b)}, **rest)
    return of_b + function(**{first: _radius(a), second: np.abs(_middle(b)) + _radius(b)}, **rest)


def _radius(value: Any) -> Any:
    return value.radius.copy() if isinstance(value, Ball) else np.zeros_like(value)


def framed(x: Any, before: Pair, size: Pair) -> tuple[Any, Sides]:
    """An image moved down and right by `before` in a frame of `size`: what sticks out is cut off; and the sides of the frame that stay empty.

    >>> framed(np.array([[[[1.0, 2.0, 3.0]]]]), (0, -1), (1, 4))
    (array([[[[2., 3.]]]]), ((0, 0), (0, 2)))
    """
    start = [max(0, -b) for b in before]
    x = x[:, :, start[0]:max(start[0], size[0] - before[0]), start[1]:max(start[1], size[1] - before[1])]
    lead = [min(max(0, b), n) for b, n in zip(before, size, strict=True)]
    top, left = ((b, n - b - length) for b, n, length in zip(lead, size, x.shape[2:], strict=True))
    return x, (top, left)


def fitted(x: Any, before: Pair, size: Pair) -> Any:
    """`framed`, with zeros around it.

    >>> fitted(np.array([[[[1.0, 2.0, 3.0]]]]), (0, -1), (1, 4))
    array([[[[2., 3., 0., 0.]]]])
    """
    x, sides = framed(x, before, size)
    return np.pad(x, ((0, 0), (0, 0), *sides))


def reach(out: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> Pair:
    """(height, width) of the part of the padded image that so many windows see."""
    h, w = ((n - 1) * s + extent(k, d) for n, k, s, d in zip(out, kernel, stride, dilation, strict=True))
    return h, w


def output_size(x: Any, kernel: Pair, stride: Pair, padding: Sides, dilation: Pair = (1, 1)) -> Pair:
    """(height, width) of a convolution's output."""
    h, w = (max(0, (n + sum(p) - extent(k, d)) // s + 1) for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True))
    return h, w


def conv2d(x: Any, w: Any, b: Any, stride: Pair, padding: Sides, dilation: Pair, groups: int, out: Pair | None = None) -> Any:
    """The right convolution, with `out` windows instead of as many as fit."""
    kernel = w.shape[2:]
    out = output_size(x, kernel, stride, padding, dilation) if out is None else out
    x, sides = framed(x, (padding[0][0], padding[1][0]), reach(out, kernel, stride, dilation))
    return apply("conv2d", x=x, w=w, b=b, stride=stride, padding=sides, dilation=dilation, groups=groups)


def conv2d_input_grad(gy: Any, w: Any, input_shape: tuple[int, ...], stride: Pair, padding: Sides, dilation: Pair, groups: int) -> Any:
    """The right gradient, whatever the size of gy."""
    size = reach(gy.shape[2:], w.shape[2:], stride, dilation)
    full = apply("conv2d_input_grad", gy=gy, w=w, input_shape=(*input_shape[:2], *size), stride=stride, dilation=dilation, groups=groups)
    return fitted(full, (-padding[0][0], -padding[1][0]), input_shape[2:])


def conv2d_weight_grad(gy: Any, x: Any, weight_shape: tuple[int, ...], stride: Pair, padding: Sides, dilation: Pair, groups: int) -> Any:
    """The right gradient, whatever the size of gy."""
    x, sides = framed(x, (padding[0][0], padding[1][0]), reach(gy.shape[2:], weight_shape[2:], stride, dilation))
    return apply("conv2d_weight_grad", gy=gy, x=x, weight_shape=tuple(weight_shape), stride=stride, padding=sides, dilation=dilation,
                 groups=groups)


def conv_transpose2d(x: Any, w: Any, b: Any, stride: Pair, padding: Sides, output_padding: Pair, dilation: Pair, groups: int,
                     out: Pair | None = None) -> Any:
    """The right transposed convolution, with an output of the size `out` instead of the one that belongs to the geometry."""
    if out is None:
        h, w_ = ((n - 1) * s - sum(p) + extent(k, d) + more for n, s, p, k, d, more in
                 zip(x.shape[2:], stride, padding, w.shape[2:], dilation, output_padding, strict=True))
        out = h, w_
    y = conv2d_input_grad(x, w, (len(x), w.shape[1] * groups, *out), stride, padding, dilation, groups)
    return y if b is None else y + b.reshape(1, -1, 1, 1)


def _by_position(op: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return apply(op, **dict(zip(PARAMETERS[op], args, strict=False)), **kwargs)

    return call


def right(**replaced: Callable[..., Any]) -> SimpleNamespace:
    """All right functions, in the order of the signatures; some of them replaced."""
    lenient = {f.__name__: f for f in (conv2d, conv2d_input_grad, conv2d_weight_grad, conv_transpose2d)}
    return SimpleNamespace(**{**{op: _by_position(op) for op in OPS}, **lenient, **replaced})


RIGHT = right()


def biased_batch_norm(*args: Any, **kwargs: Any) -> Any:
    """The right batch norm of who declares that the running variance is blended with the biased estimate."""
    given = {**dict(zip(PARAMETERS["batch_norm"], args, strict=False)), **kwargs}
    whole = RIGHT.batch_norm(**given)
    if not given["training"]:
        return whole
    x, old, momentum = given["x"], given["running_var"], given["momentum"]
    unbiased = RIGHT.batch_norm(**{**given, "running_var": np.zeros_like(old), "momentum": 1.0})[2]
    n = x.size // max(1, x.shape[1])
    return *whole[:2], old * (1 - momentum) + unbiased * (momentum * (n - 1) / max(1, n))


def right_of(declared: Declaration | None) -> SimpleNamespace:
    """All right functions under the conventions that a target declares."""
    return right(batch_norm=biased_batch_norm) if declared is not None and declared.running_variance == "biased" else RIGHT
