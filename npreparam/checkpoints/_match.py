"""Matching one pattern against the tensors of one place in a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator

from npreparam.checkpoints._leaves import PLACEHOLDER, Binding, Leaves, MismatchError, Part
from npreparam.checkpoints._pattern import Term
from npreparam.checkpoints.expression import BatchNorm, Concat, Conv, Expression, Identity, OnGrid, Pad, Scale, Sequence, Shuffle, Slice, Sum, leaves


class Matcher(Leaves):
    """Builds the expression of one block; what it uses and what it could not know is kept."""

    def match(self, binding: Binding) -> Expression:
        """The block's expression, with numbers for the placeholders of the whole pattern, or MismatchError with the reason."""
        part = self.build(self.pattern.term, binding, None)
        if self.stride != 1 and _has_identity(part.expression):
            self.stride = 1  # a branch that does nothing keeps every position
            part = self.build(self.pattern.term, binding, None)
        return part.expression

    def build(self, term: Term, binding: Binding, inputs: int | None) -> Part:
        """One term, given its number of input channels where that is known."""
        if not term.arguments and term.kind not in ("identity", "scale"):
            raise MismatchError(f"the pattern has an empty {term.kind}()")
        if term.kind == "conv_bn":
            conv = Term("conv", term.arguments[:1], term.options)
            return self._sequence((conv, Term("bn", term.arguments[1:])), binding, inputs)
        if term.kind == "sum":
            return self._sum(term, binding, inputs)
        if term.kind == "seq":
            return self._sequence(term.arguments, binding, inputs)
        if term.kind == "either":
            return self._either(term, binding, inputs)
        if term.kind in ("cat", "split"):
            return self._cat(term, binding, inputs) if term.kind == "cat" else self._split(term, binding, inputs)
        if term.kind == "grid":
            return self._grid(term, binding)
        if term.kind == "identity":
            return Part(Identity(), inputs, inputs)
        if term.kind == "shuffle":
            return Part(Shuffle(self._integer(str(term.arguments[0]), binding, 0)), inputs, inputs)
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

    def _cat(self, term: Term, binding: Binding, inputs: int | None) -> Part:
        """Stacked outputs; a term `last` reads the last of the input's channels, as many as it has."""
        parts: list[Part] = []
        for each, bound in self._terms(term.arguments, binding):
            inputs = _agreed([inputs, *(part.inputs for part in parts)], "input")
            parts.append(self._last(each, bound, inputs) if each.kind == "last" else self.build(each, bound, inputs))
        _agreed([inputs, *(part.inputs for part in parts)], "input")
        outputs = None if any(part.outputs is None for part in parts) else sum(part.outputs or 0 for part in parts)
        return Part(Concat(tuple(part.expression for part in parts)), inputs or parts[0].inputs, outputs)

    def _last(self, term: Term, binding: Binding, inputs: int | None) -> Part:
        part = self._sequence(term.arguments, binding, None)
        if inputs is None or part.inputs is None or part.inputs > inputs:
            raise MismatchError(f"{part.inputs} of {inputs} channels cannot be read")
        return _reading(part, inputs - part.inputs, inputs)

    def _split(self, term: Term, binding: Binding, inputs: int | None) -> Part:
        """A sum of maps, each of its own part of the input's channels."""
        parts = [self.build(each, bound, None) for each, bound in self._terms(term.arguments, binding)]
        if any(part.inputs is None for part in parts):
            raise MismatchError("the channels of its parts are not known")
        total = _agreed([inputs, sum(part.inputs or 0 for part in parts)], "input")
        first, terms = 0, []
        for part in parts:
            terms.append(_reading(part, first, total or 0).expression)
            first += part.inputs or 0
        return Part(Sum(tuple(terms)), total, _agreed([part.outputs for part in parts], "output"))

    def _grid(self, term: Term, binding: Binding) -> Part:
        """A map of images of one size, whose pixels are channels; the size is no matter of the tensors."""
        part = self._sequence(term.arguments, binding, None)
        size = tuple(map(int, re.findall(r"\d+", term.option("size") or "")))
        if len(size) != 2 or 0 in size:
            self.open["the grid's size, which a pattern file gives as grid(..., size=7x7)"] = None
            return Part(OnGrid(part.expression, (1, 1)), None, None)
        inputs, outputs = (None if n is None else n * size[0] * size[1] for n in (part.inputs, part.outputs))
        return Part(OnGrid(part.expression, size), inputs, outputs)

    def _sum(self, term: Term, binding: Binding, inputs: int | None) -> Part:
        branches = [argument for argument in term.arguments if not (isinstance(argument, Term) and argument.kind == "skip")]
        skips = [argument for argument in term.arguments if isinstance(argument, Term) and argument.kind == "skip"]
        parts = [self.build(each, bound, inputs) for each, bound in self._terms(tuple(branches), binding)]
        outputs = _agreed([part.outputs for part in parts], "output")
        inputs = _agreed([inputs, *(part.inputs for part in parts)], "input")
        if inputs is None and any(_preserves(part.expression) for part in parts):
            inputs = outputs
        skips, inputs = self._skips_and_inputs(skips, parts, inputs, outputs)
        parts = [self.build(each, bound, inputs) for each, bound in self._terms(tuple(branches), binding)]
        if any(_preserves(part.expression) for part in parts) and inputs != outputs:
            raise MismatchError(f"an identity branch beside branches from {inputs} to {outputs} channels")
        terms = [part.expression for part in parts]
        for term in skips:  # x itself, or what has no tensors either
            if self._skip(term, inputs, outputs):
                inner = term.arguments[0] if term.arguments else None
                terms.append(self.build(inner, binding, inputs).expression if isinstance(inner, Term) else Identity())
        return Part(Sum(tuple(terms)), inputs, outputs)

    def _skips_and_inputs(self, skips: list[Term], parts: list[Part], inputs: int | None, outputs: int | None) -> tuple[list[Term], int | None]:
        """Where x is said to be added and the groups are unknown: kernels as wide as their outputs then have one group, others may widen instead."""
        columns = {self.shapes[leaf.weight][1] for part in parts for leaf in leaves(part.expression) if isinstance(leaf, Conv)}
        if not skips or not self.identity or inputs is not None or outputs is None or len(columns) != 1:
            return skips, inputs
        width = columns.pop()
        if width == outputs:
            return skips, outputs
        if outputs % width == 0:
            self.open["the number of groups, which a pattern file gives as groups = 1"] = None
        return [], None

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


def _reading(part: Part, first: int, total: int) -> Part:
    """A part of an expression that reads its channels among others."""
    if part.inputs is None:
        raise MismatchError("the channels of its parts are not known")
    return Part(Sequence((Slice(first, part.inputs, total), part.expression)), total, part.outputs)


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
