"""The leaves of a pattern, looked up among the tensors of one place in a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from npreparam.checkpoints._pattern import Pattern, Term
from npreparam.checkpoints.expression import AvgPool, BatchNorm, Conv, Expression, Pad, Scale, Sizes

PLACEHOLDER = re.compile(r"\{(\w+)\}")
STATISTICS = (("running_mean", "running_var"), ("_mean", "_variance"))  # PyTorch's and PaddlePaddle's names
Binding = dict[str, int]


class MismatchError(Exception):
    """Why a pattern does not fit here."""


class Part(NamedTuple):
    """A matched term with its numbers of input and output channels, None where unknown."""

    expression: Expression
    inputs: int | None
    outputs: int | None


def tensor_of(term: Term) -> str:
    """The (relative) name of the tensor by which a leaf of a pattern is found."""
    path = str(term.arguments[0]) if term.arguments else ""
    if term.kind == "bn":
        return f"{path}.running_var"
    if term.kind == "scale":
        part = term.option("weight") or term.option("bias")
        return f"{path}.{part}" if part else path
    return path if term.option("weight") == "self" else f"{path}.{term.option('weight') or 'weight'}"


class Leaves:
    """Builds the leaves of one block's expression; what they use and what they could not know is kept."""

    def __init__(self, pattern: Pattern, prefix: str, shapes: Mapping[str, tuple[int, ...]], owners: set[str]) -> None:
        self.pattern, self.prefix, self.shapes, self.owners = pattern, prefix, shapes, owners
        self.eps, self.stride, self.identity = pattern.eps, pattern.stride, None
        self.used: dict[str, None] = {}
        self.open: dict[str, None] = {}

    def full(self, path: str, binding: Binding) -> str:
        """A pattern's path as a name in the checkpoint."""
        try:
            return self.prefix + PLACEHOLDER.sub(lambda found: str(binding[found[1]]), path)
        except KeyError as error:
            raise MismatchError(f"{{{error.args[0]}}} is not bound in this part of the pattern") from None

    def use(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, which then belongs to the block."""
        if name not in self.shapes:
            raise MismatchError(f"there is no {name}")
        self.used[name] = None
        return self.shapes[name]

    def optional(self, name: str) -> str | None:
        """A name, if the checkpoint has it."""
        if name not in self.shapes:
            return None
        self.used[name] = None
        return name

    def _conv(self, term: Term, binding: Binding, inputs: int | None) -> Part:
        path = self.full(str(term.arguments[0]), binding)
        weight = path if term.option("weight") == "self" else f"{path}.{term.option('weight') or 'weight'}"
        shape = self.use(weight)
        if not 2 <= len(shape) <= 5 or 0 in shape:
            raise MismatchError(f"{weight} of shape {shape} is no kernel")
        window = self.full(str(term.option("shape")), binding) if term.option("shape") else None
        size = self._window(window, weight, shape) if window else shape[2:]
        if term.option("kernel") not in (None, "x".join(map(str, size))):
            raise MismatchError(f"{weight} of shape {shape} should have a kernel of {term.option('kernel')}")
        groups = self._groups(term.option("groups"), weight, shape, inputs)
        bias = self.optional(f"{path}.{term.option('bias') or 'bias'}")
        if bias and self.shapes[bias] != shape[:1]:
            raise MismatchError(f"{bias} of shape {self.shapes[bias]} beside {weight} of shape {shape}")
        factor = f"{path}.{term.option('factor')}" if term.option("factor") else None
        if factor and self.use(factor)[:1] != shape[:1]:
            raise MismatchError(f"{factor} of shape {self.shapes[factor]} beside {weight} of shape {shape}")
        padding, dilation = self._geometry(term, binding, weight, size)
        stride = self._integer(term.option("stride"), binding, 0) or (self.stride if size else 1)
        turns = term.option("rows") == "in_turn" and (groups or 1) > 1
        made = Conv(weight, bias, factor, window, padding, dilation, stride, groups, in_turn=turns)
        return Part(made, shape[1] * groups if groups else inputs, shape[0])

    def _window(self, window: str, weight: str, shape: tuple[int, ...]) -> Sizes:
        """The size of a kernel that is a 1x1 kernel times a window, or one for each output channel."""
        stored, axes = self.use(window), len(shape) - 2
        if any(n != 1 for n in shape[2:]) or stored[: len(stored) - axes] not in ((), shape[:1]) or 0 in stored:
            raise MismatchError(f"{window} of shape {stored} is no window for {weight} of shape {shape}")
        return stored[len(stored) - axes :]

    def _geometry(self, term: Term, binding: Binding, weight: str, size: Sizes) -> tuple[Sizes | None, int | None]:
        """Padding and dilation: `pad=any` where the family has convolutions of every kind, a number, or what keeps the size."""
        if not size:
            return (), 1
        if term.option("pad") == "any":
            return None, None
        dilation = self._integer(term.option("dilation"), binding, 1)
        if term.option("pad"):
            return (self._integer(term.option("pad"), binding, 0),) * len(size), dilation
        return _same(weight, size, dilation), dilation

    def _groups(self, option: str | None, weight: str, shape: tuple[int, ...], inputs: int | None) -> int | None:
        rule = option or self.pattern.groups
        if len(shape) == 2:
            groups: int | None = 1
        elif rule == "depthwise":
            groups = shape[0]
        elif rule == "inputs":  # each input channel by itself, to any number of outputs
            groups = inputs
        elif "/" in str(rule):  # of two kernels the one after the other: the outputs of the first over the inputs of each group of the second
            first, second = (self.use(self.prefix + name.strip()) for name in str(rule).split("/", 1))
            groups = first[0] // (second[1:] or (1,))[0] if 0 not in (*first, *second) else 0
        elif rule is not None:
            groups = self._integer(str(rule), {}, 1)
        else:
            groups = inputs // shape[1] if inputs else None
        if groups is not None and (not groups or shape[0] % groups or (inputs or shape[1] * groups) != shape[1] * groups):
            raise MismatchError(f"{weight} of shape {shape} does not fit {inputs or 'any number of'} input channels"
                                + (" and depthwise" if rule == "depthwise" else ""))
        if rule == "depthwise" and shape[1] != 1:
            raise MismatchError(f"{weight} of shape {shape} is not depthwise")
        return groups

    @staticmethod
    def _integer(text: str | None, binding: Binding, default: int) -> int:
        if text is None:
            return default
        text = PLACEHOLDER.sub(lambda found: str(binding.get(found[1], "")), text)
        if not re.fullmatch(r"-?\d{1,9}", text):
            raise MismatchError(f"the pattern has {text!r} where a number should be")
        return int(text)

    def _bn(self, term: Term, binding: Binding, inputs: int | None) -> Part:
        path = self.full(str(term.arguments[0]), binding)
        stored = [(f"{path}.{mean}", f"{path}.{var}") for mean, var in STATISTICS if f"{path}.{var}" in self.shapes]
        if not stored:
            raise MismatchError(f"{path} has no running statistics" if path in self.owners else f"there is no {path}")
        mean, var = stored[0]
        weight, bias = self.optional(f"{path}.weight"), self.optional(f"{path}.bias")
        shapes = {self.use(name) for name in (mean, var, weight, bias) if name}
        self.optional(f"{path}.num_batches_tracked")
        if len(shapes) != 1 or len(shape := shapes.pop()) != 1 or (inputs or shape[0]) != shape[0]:
            raise MismatchError(f"{path} does not have one value for each of {inputs or 'its'} channels")
        return Part(BatchNorm(mean, var, weight, bias, self.eps), shape[0], shape[0])

    def _scale(self, term: Term, binding: Binding, inputs: int | None) -> Part:
        if not term.arguments:
            return Part(Scale(number=float(self._integer(term.option("number"), binding, 1))), inputs, inputs)
        path = self.full(str(term.arguments[0]), binding)
        named = term.option("weight") or term.option("bias")
        weight = f"{path}.{term.option('weight')}" if term.option("weight") else None if named else path
        bias = f"{path}.{term.option('bias')}" if term.option("bias") else None
        row = self._integer(term.option("row"), binding, 0) if term.option("row") else None
        sizes = set()
        for name in filter(None, (weight, bias)):
            shape = self.use(name)
            if row is not None:
                if len(shape) != 2 or not 0 <= row < shape[0]:
                    raise MismatchError(f"{name} of shape {shape} has no row {row}")
                shape = shape[1:]
            sizes |= {size for size in shape if size != 1}
            if len(sizes) > 1 or sum(size != 1 for size in shape) > 1:
                raise MismatchError(f"{name} of shape {shape} is neither one number nor one for each channel")
        channels = sizes.pop() if sizes else inputs
        if inputs is not None and channels != inputs:
            raise MismatchError(f"{path} scales {channels} channels where there are {inputs}")
        return Part(Scale(weight, bias, row=row), channels, channels)

    def _pad(self, term: Term, binding: Binding, inputs: int | None) -> Part:
        argument = str(term.arguments[0])
        if re.fullmatch(r"-?\d{1,9}", argument):
            return Part(Pad((int(argument),) * 2), inputs, inputs)
        return Part(Pad(_same(argument, self._size(argument, binding), 1)), inputs, inputs)

    def _avgpool(self, term: Term, binding: Binding, inputs: int | None) -> Part:
        return Part(AvgPool(self._size(str(term.arguments[0]), binding), self.stride), inputs, inputs)

    def _size(self, path: str, binding: Binding) -> Sizes:
        weight = f"{self.full(path, binding)}.weight"
        if weight not in self.shapes:
            raise MismatchError(f"there is no {weight}")
        return self.shapes[weight][2:]


def _same(name: str, size: Sizes, dilation: int) -> Sizes:
    """Padding that keeps the size; an even kernel has no such padding that is the same on both sides."""
    if not all(n % 2 for n in size):
        raise MismatchError(f"{name} has an even kernel {size}, whose padding only its author knows")
    return tuple(dilation * (n - 1) // 2 for n in size)
