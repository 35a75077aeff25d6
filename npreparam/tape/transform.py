"""Functions of functions: value_and_grad, vjp, and jvp by two vjps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npreparam._errors import ArgumentError, DTypeError
from npreparam._shapes import as_int
from npreparam.ops._validate import as_array, check_shape
from npreparam.tape.grad import checked_output, grad
from npreparam.tape.tensor import Tensor


def value_and_grad(f: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., tuple[Any, Any]]:
    """A function that returns f's scalar value and its gradient with respect to the arguments numbered `argnums`.

    The gradient is one array where `argnums` is one number, else a tuple. The other arguments reach f as they are.

    Raises UnusedInputError that names the arguments on which the value does not depend, ArgumentError for a value that is no scalar Tensor.

    >>> value_and_grad(lambda x: x * x)(np.array(3.0))
    (array(9.), array(6.))
    """
    chosen = argnums if isinstance(argnums, Sequence) else (argnums,)

    def both(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        tensors = list(args)
        for i in chosen:
            if as_int(i, "argnums", -len(args)) >= len(args):
                raise ArgumentError(f"`argnums` (={argnums!r}) must lie in [{-len(args)}, {len(args)}), the arguments given by position")
            tensors[i] = _leaf(args[i], i % len(args))
        output = f(*tensors, **kwargs)
        inputs = tuple(tensors[i] for i in chosen)
        gradients = grad(checked_output(output, "the value of `f`", [f"`{x.name}`" for x in inputs]), inputs)
        return output.value, gradients if isinstance(argnums, Sequence) else gradients[0]

    return both


def vjp(f: Callable[..., Tensor], *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """f's value, and the map from a cotangent of it to cotangents of the arguments: g -> g^T (df/dx_i).

    f is run once; the map may be called any number of times. An argument that f ignores has the cotangent zero.

    Raises UnusedInputError for a value that was not computed on the tape at all.

    >>> y, pullback = vjp(lambda x: x * x, np.array([1.0, 2.0]))
    >>> pullback(np.array([1.0, 10.0]))
    (array([ 2., 40.]),)
    """
    tensors, output = _call(f, primals)

    def pullback(cotangent: Any) -> tuple[Any, ...]:
        return grad(output, tensors, cotangent, allow_unused=True)

    return output.value, pullback


def jvp(f: Callable[..., Tensor], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """f's value, and its directional derivative: sum over i of (df/dx_i) tangent_i.

    The vjp is linear in its cotangent, so that differentiating it *with respect to the cotangent* gives the jvp.

    Raises ArgumentError, ShapeError and DTypeError for tangents that do not fit, UnusedInputError as `vjp`.

    Source: Townsend, A new trick for calculating Jacobian vector products, 2017.

    >>> jvp(lambda x: x * x, [np.array([1.0, 2.0])], [np.array([1.0, 10.0])])
    (array([1., 4.]), array([ 2., 40.]))
    """
    if len(primals) != len(tangents):
        raise ArgumentError(f"`tangents` (={len(tangents)} of them) must be as many as `primals` (={len(primals)})")
    tensors, output = _call(f, primals)
    directions = [_tangent(tangent, i, tensor) for i, (tangent, tensor) in enumerate(zip(tangents, tensors, strict=True))]
    g = Tensor(np.zeros(output.shape, output.dtype), "cotangent")
    total = np.zeros(output.shape, output.dtype)
    for pulled, direction in zip(grad(output, tensors, g, create_graph=True, allow_unused=True), directions, strict=True):
        total += grad(pulled, g, direction, allow_unused=True)
    return output.value, total


def _leaf(primal: Any, position: int) -> Tensor:
    if isinstance(primal, Tensor):
        raise ArgumentError(f"argument {position} is a Tensor, whose history would end here; pass its .value, "
                            "or take derivatives of derivatives by grad(..., create_graph=True)")
    return Tensor(as_array(primal, f"argument {position}"), f"argument {position}")


def _call(f: Callable[..., Tensor], primals: Sequence[Any]) -> tuple[tuple[Tensor, ...], Tensor]:
    """The arguments as leaves of a tape, and f of them."""
    tensors = tuple(_leaf(primal, i) for i, primal in enumerate(primals))
    return tensors, checked_output(f(*tensors), "the value of `f`", [f"`{x.name}`" for x in tensors])


def _tangent(tangent: Any, position: int, primal: Tensor) -> Any:
    name = f"tangents[{position}]"
    tangent = as_array(tangent, name)
    check_shape(tangent, name, primal.shape, "that of its primal")
    if tangent.dtype != primal.dtype:
        raise DTypeError(f"`{name}` has dtype {tangent.dtype}, but must have the dtype {primal.dtype} of its primal")
    return tangent
