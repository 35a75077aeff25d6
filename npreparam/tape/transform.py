"""Functions of functions: value_and_grad, vjp, and jvp by two vjps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npreparam._errors import ArgumentError
from npreparam.ops._validate import as_array, check_shape
from npreparam.tape.grad import grad
from npreparam.tape.tensor import Tensor, value_of


def value_and_grad(f: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., tuple[Any, Any]]:
    """A function that returns f's scalar value and its gradient with respect to the arguments numbered `argnums`.

    >>> value_and_grad(lambda x: x * x)(np.array(3.0))
    (array(9.), array(6.))
    """
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def both(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        tensors = list(args)
        for i in numbers:
            tensors[i] = Tensor(value_of(args[i]), name=f"argument {i}")
        output = f(*tensors, **kwargs)
        gradients = grad(output, [tensors[i] for i in numbers])
        return value_of(output), gradients[0] if isinstance(argnums, int) else tuple(gradients)

    return both


def vjp(f: Callable[..., Tensor], *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """f's value, and the map from a cotangent of it to cotangents of the arguments: g -> g^T (df/dx_i).

    >>> y, pullback = vjp(lambda x: x * x, np.array([1.0, 2.0]))
    >>> pullback(np.array([1.0, 10.0]))
    (array([ 2., 40.]),)
    """
    tensors = [Tensor(value_of(primal), name=f"argument {i}") for i, primal in enumerate(primals)]
    output = f(*tensors)

    def pullback(cotangent: Any) -> tuple[Any, ...]:
        return tuple(grad(output, tensors, cotangent, allow_unused=True))

    return value_of(output), pullback


def jvp(f: Callable[..., Tensor], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """f's value, and its directional derivative: sum over i of (df/dx_i) tangent_i.

    The vjp is linear in its cotangent, so that differentiating it *with respect to the cotangent* gives the jvp.

    Source: Townsend, A new trick for calculating Jacobian vector products, 2017.

    >>> jvp(lambda x: x * x, [np.array([1.0, 2.0])], [np.array([1.0, 10.0])])
    (array([1., 4.]), array([ 2., 40.]))
    """
    if len(primals) != len(tangents):
        raise ArgumentError(f"`tangents` (={len(tangents)} of them) must be as many as `primals` (={len(primals)})")
    tensors = [Tensor(value_of(primal), name=f"argument {i}") for i, primal in enumerate(primals)]
    tangents = [as_array(value_of(tangent), f"tangents[{i}]") for i, tangent in enumerate(tangents)]
    for i, (tangent, tensor) in enumerate(zip(tangents, tensors, strict=True)):
        check_shape(tangent, f"tangents[{i}]", tensor.shape, "that of its primal")
    output = f(*tensors)
    g = Tensor(np.zeros(output.shape, output.dtype), name="cotangent")
    pulled = grad(output, tensors, g, create_graph=True, allow_unused=True)
    total = np.zeros(output.shape, output.dtype)
    for cotangent, tangent in zip(pulled, tangents, strict=True):
        total = total + grad(cotangent, g, tangent, allow_unused=True)
    return value_of(output), total
