"""The `Tensor`: an array that remembers which primitive made it, and of which tensors."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam import ops
from npreparam._errors import ArgumentError
from npreparam.ops._primitive import Primitive
from npreparam.ops._validate import as_array

Array = NDArray[Any]

_ids = itertools.count()  # next() is atomic, so tensors of several threads never share an id


class Node:
    """One recorded call: the primitive, its arguments by name with Tensors where they were passed, and its output arrays.

    `tensors` holds the arguments that are Tensors, or tuples with Tensors among them, as tuples; `parents` the Tensors among them.
    """

    __slots__ = ("arguments", "id", "parents", "primitive", "tensors", "tuple_output", "values")

    def __init__(self, primitive: Primitive, arguments: dict[str, Any], values: tuple[Array, ...], tuple_output: bool) -> None:
        self.primitive, self.arguments, self.values, self.tuple_output = primitive, arguments, values, tuple_output
        self.tensors = {name: argument if isinstance(argument, tuple) else (argument,)
                        for name, argument in arguments.items() if _holds_tensor(argument)}
        self.parents = [value for values in self.tensors.values() for value in values if isinstance(value, Tensor)]
        self.id = next(_ids)


class Tensor:
    """An array on the tape. Functions of `npreparam.ops` called with Tensors return Tensors; `grad` differentiates them.

    `value` is a float32 or float64 array, which must not be changed in place while results that depend on it are still differentiated.
    `name` appears in error messages.

    >>> x = Tensor(np.array([1.0, 2.0]), name="x")
    >>> (x * x + 1.0).value
    array([2., 5.])
    """

    __slots__ = ("_value", "id", "index", "name", "node")
    __array_ufunc__ = None  # so that array * tensor comes here instead of looping over elements

    def __init__(self, value: Any, name: str | None = None) -> None:
        if isinstance(value, Tensor):
            raise ArgumentError("`value` is a Tensor already; use its .detach() for a new leaf")
        self._value, self.name = as_array(value, "value"), name
        self.id, self.node, self.index = next(_ids), None, 0

    @property
    def value(self) -> Array:
        """The array."""
        return self._value

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self._value.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the array."""
        return self._value.dtype

    @property
    def ndim(self) -> int:
        """Number of axes of the array."""
        return self._value.ndim

    @property
    def size(self) -> int:
        """Number of elements of the array."""
        return self._value.size

    def detach(self) -> Tensor:
        """A new leaf with the same value: nothing flows back through it."""
        return Tensor(self._value, self.name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return Tensor(self._value.copy(), self.name)  # a leaf with an id of its own

    def __repr__(self) -> str:
        name = "" if self.name is None else f", name={self.name!r}"
        return f"Tensor({self._value!r}{name})"

    def __len__(self) -> int:
        return len(self._value)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __array__(self, *args: Any, **kwargs: Any) -> Array:
        raise TypeError("a Tensor is not converted to an array or a number silently, since no gradient would flow through it; "
                        "use its .value")

    # numpy.float64(x), math.exp(x) and `if x:` would cut the tape as silently
    __float__ = __bool__ = __array__

    @staticmethod
    def __npreparam_apply__(primitive: Primitive, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a primitive on the arrays of its Tensors, and record the call."""
        arguments = primitive.bind(args, kwargs)
        for name, argument in arguments.items():
            if _holds_tensor(argument) and primitive.row(name) is None:
                raise ArgumentError(f"`{name}` of `{primitive.name}` is not differentiable; pass an array (the tensor's .value)")
        result = primitive.call({name: value_of(argument) for name, argument in arguments.items()})
        values = tuple(np.asarray(value) for value in (result if isinstance(result, tuple) else (result,)))
        node = Node(primitive, arguments, values, isinstance(result, tuple))
        outputs = tuple(output_of(node, index) for index in range(len(values)))
        return outputs if node.tuple_output else outputs[0]

    def __add__(self, other: Any) -> Any:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Any:
        return ops.add(other, self)

    def __sub__(self, other: Any) -> Any:
        return ops.sub(self, other)

    def __rsub__(self, other: Any) -> Any:
        return ops.sub(other, self)

    def __mul__(self, other: Any) -> Any:
        return ops.mul(self, other)

    def __rmul__(self, other: Any) -> Any:
        return ops.mul(other, self)

    def __truediv__(self, other: Any) -> Any:
        return ops.div(self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return ops.div(other, self)

    def __neg__(self) -> Any:
        return ops.neg(self)

    def __matmul__(self, other: Any) -> Any:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return ops.matmul(other, self)

    def __getitem__(self, index: Any) -> Any:
        return ops.getitem(self, index)


def output_of(node: Node, index: int) -> Tensor:
    """Output `index` of a recorded call; its id is the node's, which is above its parents' ids."""
    tensor = Tensor.__new__(Tensor)
    tensor._value, tensor.name, tensor.node, tensor.index, tensor.id = node.values[index], None, node, index, node.id
    return tensor


def _holds_tensor(argument: Any) -> bool:
    return isinstance(argument, Tensor) or (isinstance(argument, tuple) and any(isinstance(item, Tensor) for item in argument))


def value_of(argument: Any) -> Any:
    """The array of a Tensor, the arrays of a tuple that holds Tensors; anything else as it is."""
    if isinstance(argument, Tensor):
        return argument.value
    if isinstance(argument, tuple):
        return tuple(value_of(item) for item in argument)
    return argument
