"""Matching one pattern against the tensors of one place in a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from npreparam.checkpoints._pattern import Pattern, Term
from npreparam.checkpoints.expression import AvgPool, BatchNorm, Conv, Expression, Identity, Pad, Scale, Sequence, Sizes, Sum

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
    return f"{path}.{term.option('weight') or 'weight'}"


class Matcher:
    """Builds the expression of one block; what it uses and what it could not know is kept."""

    def __init__(self, pattern: Pattern, prefix: str, shapes: Mapping[str, tuple[int, ...]], owners: set[str]) -> None:
        self.pattern, self.prefix, self.shapes, self.owners = pattern, prefix, shapes, owners
        self.eps, self.stride, self.identity = pattern.eps, pattern.stride, None
        self.used: dict[str, None] = {}
        self.open: dict[str, None] = {}

    def match(self) -> Expression:
        """The block's expression, or MismatchError with the reason."""
        part = self.build(self.pattern.term, {}, None)
        if self.stride != 1 and _has_identity(part.expression):
            self.stride = 1  # a branch that does nothing keeps every position
            part = self.build(self.pattern.term, {}, None)
        return part.expression

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

    def build(self, term: Term, binding: Binding, inputs: int | None) -> Part:
        """One term, given its number of input channels where that is known."""
        if term.kind == "conv_bn":
            conv = Term("conv", term.arguments[:1], term.options)
            return self._sequence((conv, Term("bn", term.arguments[1:])), binding, inputs)
        if term.kind == "sum":
            return self._sum(term, binding, inputs)
        if term.kind == "seq":
            return self._sequence(term.arguments, binding, inputs)
        if term.kind == "either":
            return self._either(term, binding, inputs)
        if term.kind == "identity":
            return Part(Identity(), inputs, inputs)
        if term.kind in ("conv", "bn", "scale", "pad", "avgpool"):
            return getattr(self, f"_{term.kind}")(term, binding, inputs)
        raise MismatchError(f"{term.kind} has no place here")

    def _terms(self, arguments: tuple[Term | str, ...], binding: Binding) -> Iterator[tuple[Term, Binding]]:
        """The terms that are present, one for each number where they repeat."""
        for term in arguments:
            if not isinstance(term, Term):
                raise MismatchError(f"the pattern has the path {term!r} in place of a term")
            if term.repeat in ("*", "+"):
                found = self._bindings(term)
                if not found and term.repeat == "+":
                    raise MismatchError(f"there is no {self.prefix}{next(term.paths())}")
                yield from ((term, binding | each) for each in found)
            elif not term.repeat or self._present(term, binding):
                yield term, binding

    def _present(self, term: Term, binding: Binding) -> bool:
        """Whether the checkpoint has anything of an optional term: then it must have all of it."""
        if term.kind in ("pad", "avgpool"):
            return False
        below = [argument for argument in term.arguments if isinstance(argument, Term)]
        paths = [self.full(argument, binding) for argument in term.arguments if not isinstance(argument, Term)]
        return any(path in self.owners or path in self.shapes for path in paths) or any(self._present(each, binding) for each in below)

    def _bindings(self, term: Term) -> list[Binding]:
        path = next(path for path in term.paths() if "{" in path)
        names = PLACEHOLDER.findall(path)
        pattern = re.compile(re.escape(self.prefix) + PLACEHOLDER.sub(r"(\\d+)", path.replace(".", r"\.")))
        found = (pattern.fullmatch(owner) for owner in self.owners)
        numbers = sorted(tuple(map(int, match.groups())) for match in found if match)
        return [dict(zip(names, each, strict=True)) for each in numbers]

    def _either(self, term: Term, binding: Binding, inputs: int | None) -> Part:
        reasons = []
        for alternative in term.arguments:
            if isinstance(alternative, Term) and self._present(alternative, binding):
                try:
                    return self.build(alternative, binding, inputs)
                except MismatchError as error:
                    reasons.append(str(error))
        raise MismatchError("; ".join(reasons) or f"there is none of {', '.join(self.full(path, binding) for path in term.paths())}")

    def _sequence(self, arguments: tuple[Term | str, ...], binding: Binding, inputs: int | None) -> Part:
        steps, first, current = [], inputs, inputs
        for term, each in self._terms(arguments, binding):
            part = self.build(term, each, current)
            first = part.inputs if current is None and first is None else first
            current = part.outputs if part.outputs is not None else current
            steps.append(part.expression)
        return Part(Sequence(tuple(steps)), first, current)

    def _sum(self, term: Term, binding: Binding, inputs: int | None) -> Part:
        branches = [argument for argument in term.arguments if not (isinstance(argument, Term) and argument.kind == "skip")]
        skips = [argument for argument in term.arguments if isinstance(argument, Term) and argument.kind == "skip"]
        parts = [self.build(each, bound, inputs) for each, bound in self._terms(tuple(branches), binding)]
        outputs = _agreed([part.outputs for part in parts], "output")
        inputs = _agreed([inputs, *(part.inputs for part in parts)], "input")
        if inputs is None and any(_preserves(part.expression) for part in parts):
            inputs = outputs
        parts = [self.build(each, bound, inputs) for each, bound in self._terms(tuple(branches), binding)]
        if any(_preserves(part.expression) for part in parts) and inputs != outputs:
            raise MismatchError(f"an identity branch beside branches from {inputs} to {outputs} channels")
        terms = [part.expression for part in parts]
        if skips and self._skip(skips[0], inputs, outputs):
            terms.append(Identity())
        return Part(Sum(tuple(terms)), inputs, outputs)

    def _skip(self, term: Term, inputs: int | None, outputs: int | None) -> bool:
        """Whether x itself is added, which leaves no trace among the tensors."""
        if inputs is not None and inputs != outputs:
            return False
        if self.identity is not None:
            return self.identity
        if term.option("when") == "same" and self.stride is not None and (inputs is not None or self.stride != 1):
            return self.stride == 1
        self.open["identity"] = None
        return False

    def _conv(self, term: Term, binding: Binding, inputs: int | None) -> Part:
        path = self.full(str(term.arguments[0]), binding)
        weight = f"{path}.{term.option('weight') or 'weight'}"
        shape = self.use(weight)
        if not 2 <= len(shape) <= 5 or 0 in shape:
            raise MismatchError(f"{weight} of shape {shape} is no kernel")
        size = shape[2:]
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
        return Part(Conv(weight, bias, factor, padding, dilation, stride, groups), shape[1] * groups if groups else inputs, shape[0])

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
        elif rule is not None:
            groups = int(rule)
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
        sizes = set()
        for name in filter(None, (weight, bias)):
            shape = self.use(name)
            sizes |= {size for size in shape if size != 1}
            if len(sizes) > 1 or sum(size != 1 for size in shape) > 1:
                raise MismatchError(f"{name} of shape {shape} is neither one number nor one for each channel")
        channels = sizes.pop() if sizes else inputs
        if inputs is not None and channels != inputs:
            raise MismatchError(f"{path} scales {channels} channels where there are {inputs}")
        return Part(Scale(weight, bias), channels, channels)

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


def _agreed(channels: list[int | None], side: str) -> int | None:
    known = {n for n in channels if n is not None}
    if len(known) > 1:
        raise MismatchError(f"branches with {' and '.join(map(str, sorted(known)))} {side} channels")
    return known.pop() if known else None


def _preserves(expression: Expression) -> bool:
    """Whether a branch works on each number by itself."""
    if isinstance(expression, Sequence):
        return all(map(_preserves, expression.steps))
    return isinstance(expression, (Identity, BatchNorm, Scale, Pad))


def _has_identity(expression: Expression) -> bool:
    if isinstance(expression, Sequence):
        return bool(expression.steps) and _has_identity(expression.steps[0])
    return isinstance(expression, Sum) and any(_preserves(term) for term in expression.terms)
