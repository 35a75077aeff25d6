"""What is done beside one plain call: the same question asked in other ways, whose answers must be right as well."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npreparam.conformance.case import Case
from npreparam.conformance.runner import Question, Reply, Runner

Array = NDArray[Any]
Outputs = tuple[Array, ...]
BATCHED = {"conv2d": ("x",), "conv_transpose2d": ("x",), "conv2d_input_grad": ("gy",), "linear": ("x",), "batch_norm": ("x",),
           "avg_pool2d": ("x",), "max_pool2d": ("x",), "log_softmax": ("x",), "cross_entropy": ("logits", "labels")}  # split along axis 0
OF_CHANNELS = {"conv2d": (("w", 0), ("b", 0)), "linear": (("w", 0), ("b", 0)), "conv2d_input_grad": (("w", 1),), "avg_pool2d": (("x", 1),),
               "max_pool2d": (("x", 1),), "batch_norm": (("x", 1), ("gamma", 0), ("beta", 0), ("running_mean", 0), ("running_var", 0)),
               "conv_transpose2d": (("w", 1), ("b", 0)), "conv2d_weight_grad": (("gy", 1),)}  # (argument, axis) of the result's channels
OTHER = {"conv2d_input_grad": ("input_shape", "x", "gx"), "conv2d_weight_grad": ("weight_shape", "w", "gw")}


class Answers(NamedTuple):
    """Several sets of results, each to be judged; a reply that is none; and a fault that no single one shows."""

    outputs: list[Outputs]
    refusal: Reply | None = None
    fault: str = ""
    suspicion: str = ""


def ask(case: Case, runner: Runner) -> Answers:
    """All answers that a case wants."""
    return _RELATIONS[case.relation](case, runner)


def _each(case: Case, runner: Runner, questions: list[Question]) -> Answers:
    outputs = []
    for question in questions:
        reply = runner.ask(question)
        if reply.level is not None:
            return Answers(outputs, reply)
        outputs.append(reply.outputs)
    return Answers(outputs)


def _question(case: Case, arguments: Mapping[str, Any] | None = None, **options: Any) -> Question:
    return Question(case.op, case.arguments if arguments is None else arguments, case.layout, **options)


def _once(case: Case, runner: Runner) -> Answers:
    return _each(case, runner, [_question(case)])


def _repeat(case: Case, runner: Runner) -> Answers:
    """Asked, something else in between, asked again."""
    name = next(name for name, value in case.arguments.items() if isinstance(value, np.ndarray))
    between = {**case.arguments, name: -case.arguments[name]}
    found = _each(case, runner, [_question(case), _question(case, between), _question(case)])
    if found.refusal:
        return found
    first, _, last = found.outputs
    same = len(first) == len(last) and all(a.tobytes() == b.tobytes() for a, b in zip(first, last, strict=True))
    return Answers([first, last], suspicion="" if same else "not the same bits twice")


def _threads(case: Case, runner: Runner) -> Answers:
    return _each(case, runner, [_question(case, threads=count) for count in (1, 3, 2)])


def _prefilled(case: Case, runner: Runner) -> Answers:
    from npreparam.conformance.truth import expected

    shape = expected(case.op, case.arguments)[0].shape
    return _each(case, runner, [_question(case, out=shape)] if case.op in runner.declaration.out else [_question(case)])


def _batch_split(case: Case, runner: Runner) -> Answers:
    """The first sample alone, then the others."""
    names = BATCHED.get(case.op, ())
    if not names or case.arguments.get("training") or len(case.arguments[names[0]]) < 2:
        return _once(case, runner)
    parts = []
    for part in (slice(0, 1), slice(1, None)):
        arguments = {**case.arguments, **{name: case.arguments[name][part] for name in names}}
        if "input_shape" in arguments:
            arguments["input_shape"] = (len(arguments["gy"]), *arguments["input_shape"][1:])
        parts.append(_question(case, arguments))
    found = _each(case, runner, parts)
    return found if found.refusal else Answers([_joined(found.outputs)])


def _joined(outputs: list[Outputs]) -> Outputs:
    first, rest = outputs
    if len(first) != len(rest) or any(a.ndim != b.ndim or a.ndim == 0 or a.shape[1:] != b.shape[1:] for a, b in zip(first, rest, strict=True)):
        return first  # its shape will be found wrong
    return tuple(np.concatenate(pair) for pair in zip(first, rest, strict=True))


def _channel_permutation(case: Case, runner: Runner) -> Answers:
    """The channels of the result in reverse order, and back."""
    places = OF_CHANNELS.get(case.op, ())
    if not places or case.arguments.get("groups", 1) != 1:
        return _once(case, runner)
    arguments = {**case.arguments, **{name: np.flip(case.arguments[name], axis) for name, axis in places if case.arguments.get(name) is not None}}
    found = _each(case, runner, [_question(case, arguments)])
    axis = 0 if case.op == "conv2d_weight_grad" else 1
    return found if found.refusal else Answers([tuple(np.flip(y, axis if y.ndim > axis else 0) if y.ndim else y for y in found.outputs[0])])


def _adjoint(case: Case, runner: Runner) -> Answers:
    """<gy, conv2d(x, w)> = <gx, x> = <gw, w>, exactly, since all numbers are small integers."""
    found = _once(case, runner)
    if found.refusal or case.op not in OTHER or "conv2d" not in runner.offers:
        return found
    shape_name, name, result = OTHER[case.op]
    given = case.arguments
    shape, gy = given[shape_name], given["gy"]
    other = (np.arange(math.prod(shape)) % 7 - 3).reshape(shape).astype(gy.dtype)
    kept = {key: given[key] for key in ("x", "w", "stride", "padding", "dilation", "groups") if key in given}
    forward = runner.ask(Question("conv2d", {**kept, name: other}))
    kinds = [(y.shape, y.dtype) for y in (*forward.outputs[:1], found.outputs[0][0])]
    if forward.level is not None or kinds != [(gy.shape, gy.dtype), (other.shape, other.dtype)]:
        return found
    left, right = _inner(gy, forward.outputs[0]), _inner(found.outputs[0][0], other)
    if left == right:
        return found
    return found._replace(fault=f"<gy, conv2d(x, w)> is {left}, but <{result}, {name}> is {right}")


def _inner(a: Array, b: Array) -> Fraction | float:
    """The exact inner product; NaN where there is one in it."""
    products = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    if not all(np.isfinite(p).all() for p in products):
        return math.nan
    return sum((Fraction(p) * Fraction(q) for p, q in zip(*(p.tolist() for p in products), strict=True)), Fraction(0))


_RELATIONS: dict[str, Callable[[Case, Runner], Answers]] = {
    "": _once, "repeat": _repeat, "threads": _threads, "prefilled": _prefilled, "batch split": _batch_split,
    "channel permutation": _channel_permutation, "adjoint": _adjoint,
}
