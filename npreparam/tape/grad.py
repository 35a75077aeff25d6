"""Reverse-mode differentiation: cotangents walk from the output back along descending creation ids."""

from __future__ import annotations

import heapq
import numbers
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam import ops
from npreparam._errors import ArgumentError, DTypeError, ShapeError, UnusedInputError
from npreparam.ops._validate import as_array
from npreparam.tape.tensor import Node, Tensor, output_of, value_of

Array = NDArray[Any]


def grad(output: Tensor, inputs: Any, cotangent: Any = None, create_graph: bool = False, allow_unused: bool = False) -> Any:
    """Gradient of an output with respect to one input, a sequence of inputs, or a dict of inputs.

    g_i = cotangent^T (d output / d input_i)

    `output` is a scalar, unless a `cotangent` of its shape is given. Inputs may be leaves or intermediate results. The result has the
    structure of `inputs`: new arrays that the caller may change, or with `create_graph` Tensors that can be differentiated again.

    Raises UnusedInputError that names every input on which the output does not depend (with `allow_unused` their gradients are zeros),
    ArgumentError for an output that is no scalar, ShapeError and DTypeError for a cotangent that does not fit.

    >>> x = Tensor(np.array(3.0), name="x")
    >>> grad(x * x * x, x)
    array(27.)
    >>> slope = grad(x * x * x, x, create_graph=True)
    >>> grad(slope, x)
    array(18.)
    """
    labels, wanted = _listed(inputs)
    checked_output(output, "`output`", labels)
    held: set[int] = set()
    found = _walk(output, _seed(output, cotangent, create_graph), wanted, create_graph, held)
    unused = [f"{label} (shape {tensor.shape})" for label, tensor in zip(labels, wanted, strict=True) if _key(tensor) not in found]
    if unused and not allow_unused:
        raise UnusedInputError(f"the output does not depend on {', '.join(unused)}: no differentiable path leads there. "
                               "If that is meant, pass allow_unused=True for zeros")
    return _like(inputs, [_finish(tensor, found.get(_key(tensor)), create_graph, held) for tensor in wanted])


def checked_output(output: Any, what: str, inputs: Sequence[str]) -> Tensor:
    """`output`, if it is one Tensor; else the error that says why it has no gradient."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, np.ndarray | np.generic | numbers.Number):
        raise UnusedInputError(f"{what} (a {type(output).__name__}) was not computed from any Tensor, "
                               f"so it does not depend on {', '.join(inputs)}")
    raise ArgumentError(f"{what} is a {type(output).__name__}, but must be one Tensor")


def _listed(inputs: Any) -> tuple[list[str], list[Tensor]]:
    """The inputs in order, and what to call each in an error: its key in a dict, else its name, else its position."""
    if isinstance(inputs, Tensor):
        inputs = (inputs,)
    if not isinstance(inputs, Iterable):
        raise ArgumentError(f"`inputs` (a {type(inputs).__name__}) must be a Tensor, a sequence of Tensors, or a dict of them")
    named = isinstance(inputs, Mapping)
    labels: list[str] = []
    tensors: list[Tensor] = []
    for key, tensor in inputs.items() if named else enumerate(inputs):
        if not isinstance(tensor, Tensor):
            raise ArgumentError(f"`inputs` must be Tensors, but number {len(labels)} is a {type(tensor).__name__}")
        name = key if named else tensor.name
        labels.append(f"number {key} of `inputs`" if name is None else f"`{name}`")
        tensors.append(tensor)
    return labels, tensors


def _like(inputs: Any, results: list[Any]) -> Any:
    """The results in the structure of the inputs."""
    if isinstance(inputs, Tensor):
        return results[0]
    if isinstance(inputs, Mapping):
        return dict(zip(inputs, results, strict=True))
    if hasattr(inputs, "_make"):  # a namedtuple
        return inputs._make(results)
    return tuple(results) if isinstance(inputs, tuple) else results


def _seed(output: Tensor, cotangent: Any, create_graph: bool) -> Any:
    if cotangent is None:
        if output.size != 1:
            raise ArgumentError(f"`output` of shape {output.shape} is no scalar; sum it, or pass a `cotangent` of its shape")
        cotangent = np.ones(output.shape, output.dtype)
    cotangent = cotangent if isinstance(cotangent, Tensor) else as_array(cotangent, "cotangent")
    _check(cotangent, output, "`cotangent`")
    if not create_graph:
        return value_of(cotangent)
    return cotangent if isinstance(cotangent, Tensor) else Tensor(cotangent)


def _check(cotangent: Any, tensor: Tensor, what: str) -> None:
    if not isinstance(cotangent, Tensor | np.ndarray | np.generic):
        raise DTypeError(f"{what} is a {type(cotangent).__name__}, but must be an array of shape {tensor.shape}")
    if tuple(cotangent.shape) != tensor.shape:
        raise ShapeError(f"{what} has shape {tuple(cotangent.shape)}, but must have the shape {tensor.shape} of what it belongs to")
    if cotangent.dtype != tensor.dtype:
        raise DTypeError(f"{what} has dtype {cotangent.dtype}, but must have the dtype {tensor.dtype} of what it belongs to")


Key = tuple[int, int]


def _key(tensor: Tensor) -> Key:
    return tensor.id, tensor.index


def _finish(tensor: Tensor, cotangent: Any, create_graph: bool, held: set[int]) -> Any:
    """The gradient as the caller gets it; zeros where there is none. An array whose id is in `held`, or a view, is copied."""
    if cotangent is None:
        cotangent = np.zeros(tensor.shape, tensor.dtype)
        return Tensor(cotangent) if create_graph else cotangent
    if create_graph:
        return cotangent
    if type(cotangent) is not np.ndarray or cotangent.base is not None or id(cotangent) in held:
        cotangent = np.array(cotangent)  # for rules may pass on g itself, an argument, or a view
    held.add(id(cotangent))  # the next result may be this very array
    return cotangent


def _ancestors(output: Tensor, wanted: set[Key]) -> set[int]:
    """Ids of the nodes between the output and a wanted tensor: only these need their rules evaluated."""
    order: dict[int, Node] = {}
    stack = [output.node] if output.node is not None else []
    while stack:
        node = stack.pop()
        if node.id not in order:
            order[node.id] = node
            stack += [parent.node for parent in node.parents if parent.node is not None]
    needed: set[int] = set()
    for key in sorted(order):  # parents have smaller ids
        if any(parent.id in needed or _key(parent) in wanted for parent in order[key].parents):
            needed.add(key)
    return needed


def _walk(output: Tensor, seed: Any, inputs: list[Tensor], create_graph: bool, held: set[int]) -> dict[Key, Any]:
    """Cotangents of the inputs, as far as the output depends on them; adds to `held` the ids of arrays that are not theirs alone."""
    wanted = {_key(tensor) for tensor in inputs}
    needed = _ancestors(output, wanted)
    cotangents: dict[Key, Any] = {_key(output): seed}
    held.add(id(seed))
    nodes = {output.id: output.node}
    heap = [-output.id]
    while heap:
        node_id = -heapq.heappop(heap)
        node = nodes.pop(node_id)
        if node is None or node_id not in needed:
            continue
        gs = [cotangents.get((node_id, i)) if (node_id, i) in wanted else cotangents.pop((node_id, i), None)
              for i in range(len(node.values))]
        held.update(map(id, (*node.values, *map(value_of, node.arguments.values()))))
        for parent, g in _parent_cotangents(node, gs, needed, wanted, create_graph):
            key = _key(parent)
            cotangents[key] = g if key not in cotangents else ops.add(cotangents[key], g)
            if parent.id not in nodes and parent.node is not None:
                nodes[parent.id] = parent.node
                heapq.heappush(heap, -parent.id)
    return {key: cotangents[key] for key in wanted if key in cotangents}


def _parent_cotangents(node: Node, gs: list[Any], needed: set[int], wanted: set[Key], create_graph: bool) -> list[tuple[Tensor, Any]]:
    """Evaluate the rules of one node that lead to a wanted tensor."""
    owing = {name: parents for name, parents in node.tensors.items()
             if any(isinstance(p, Tensor) and (p.id in needed or (p.id, p.index) in wanted) for p in parents)}
    if not owing:
        return []
    arguments = node.arguments if create_graph else {name: value_of(argument) for name, argument in node.arguments.items()}
    gs = [np.zeros(v.shape, v.dtype) if g is None else g for g, v in zip(gs, node.values, strict=True)]
    ys: list[Any] = [output_of(node, i) for i in range(len(node.values))] if create_graph else list(node.values)
    g, y = (tuple(gs), tuple(ys)) if node.tuple_output else (gs[0], ys[0])
    call = SimpleNamespace(**arguments)
    pairs: list[tuple[Tensor, Any]] = []
    done: dict[tuple[str, ...], Any] = {}
    for name, parents in owing.items():
        names, rule = node.primitive.row(name)  # type: ignore[misc]
        if names not in done:
            result = rule(g, y, call)
            done[names] = _several(result, len(names), _what(node, name)) if len(names) > 1 else (result,)
        result = done[names][names.index(name)]
        owed = _several(result, len(parents), _what(node, name)) if isinstance(node.arguments[name], tuple) else (result,)
        for parent, cotangent in zip(parents, owed, strict=True):
            if isinstance(parent, Tensor):
                if type(cotangent) is not np.ndarray or cotangent.shape != parent.shape or cotangent.dtype != parent.dtype:
                    _check(cotangent, parent, _what(node, name))
                pairs.append((parent, cotangent))
    return pairs


def _what(node: Node, name: str) -> str:
    return f"the gradient rule of `{node.primitive.name}` for `{name}`: its result"


def _several(result: Any, count: int, what: str) -> Sequence[Any]:
    """The result of a rule that owes one cotangent for each of several arguments or arrays."""
    if not isinstance(result, tuple | list) or len(result) != count:
        has = f"{len(result)} of them" if isinstance(result, tuple | list) else f"a {type(result).__name__}"
        raise ShapeError(f"{what} is {has}, but must be {count} cotangents")
    return result
