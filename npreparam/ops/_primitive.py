"""What makes a function differentiable: the `primitive` mark, and one `gradient` row per argument (or group of arguments).

A primitive is an ordinary function over arrays. Called with anything that has `__npreparam_apply__` (the tape's Tensor), it hands the
whole call to that object, as NumPy does with `__array_function__`; so this storey records gradients without knowing the tape.

A row ``gradient(f, "x", rule)`` states the vector-Jacobian product of f with respect to its argument x:

    rule(g, y, a) = g^T (df/dx)      g: cotangent of the output y, a: the call's arguments by name

Rules are written with other primitives, so they can be differentiated again. A rule for several arguments, ``gradient(f, ("x", "w"), rule)``,
returns one cotangent for each. Where f returns a tuple, g and y are tuples too.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

Rule = Callable[[Any, Any, SimpleNamespace], Any]

PRIMITIVES: dict[str, Primitive] = {}


class Primitive:
    """A function over arrays with its gradient rows: argument names -> rule."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward, self.name = forward, forward.__name__
        self.signature = inspect.signature(forward)
        self.plain = all(p.kind is p.POSITIONAL_OR_KEYWORD for p in self.signature.parameters.values())
        self.defaults = {name: p.default for name, p in self.signature.parameters.items() if p.default is not p.empty}
        self.names = tuple(self.signature.parameters)
        self.rows: dict[tuple[str, ...], Rule] = {}

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The call's arguments by name, defaults included; a ``*arrays`` parameter is one tuple."""
        if self.plain:  # `inspect` would take longer than a small primitive
            if len(args) == len(self.names) and not kwargs:
                return dict(zip(self.names, args, strict=True))
            given = self.defaults | dict(zip(self.signature.parameters, args, strict=False)) | kwargs
            if len(given) == len(self.signature.parameters) and len(args) + len(kwargs) <= len(given):
                return {name: given[name] for name in self.signature.parameters}
        bound = self.signature.bind(*args, **kwargs)  # or raises the usual TypeError
        bound.apply_defaults()
        return dict(bound.arguments)

    def call(self, arguments: dict[str, Any]) -> Any:
        """The forward function of arguments by name, as `bind` returns them."""
        if self.plain:
            return self.forward(**arguments)
        bound = inspect.BoundArguments(self.signature, arguments)  # type: ignore[arg-type]
        return self.forward(*bound.args, **bound.kwargs)

    def row(self, argument: str) -> tuple[tuple[str, ...], Rule] | None:
        """The row that covers `argument`, or None where the function is not differentiable in it."""
        for names, rule in self.rows.items():
            if argument in names:
                return names, rule
        return None


def primitive(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function over arrays as differentiable; its rows follow as `gradient` calls."""
    record = PRIMITIVES[forward.__name__] = Primitive(forward)

    @functools.wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            apply = getattr(type(value), "__npreparam_apply__", None)
            if apply is not None:
                return apply(record, args, kwargs)
        return forward(*args, **kwargs)

    call.primitive = record  # type: ignore[attr-defined]
    return call


def gradient(function: Callable[..., Any], arguments: str | Sequence[str], rule: Rule) -> None:
    """Register the vector-Jacobian product of a primitive with respect to one argument, or to several jointly."""
    names = (arguments,) if isinstance(arguments, str) else tuple(arguments)
    record: Primitive = function.primitive  # type: ignore[attr-defined]
    unknown = [name for name in names if name not in record.signature.parameters]
    if unknown or any(record.row(name) for name in names):
        raise ValueError(f"gradient row {names} of {record.name} is unknown or given twice")
    record.rows[names] = rule
