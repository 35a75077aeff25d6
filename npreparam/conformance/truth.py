"""What a function should return: the correctly rounded values, and how far an honest implementation of a profile may be from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npreparam import certified
from npreparam._errors import ArgumentError
from npreparam._shapes import Window
from npreparam.certified import bounds
from npreparam.certified.bounds import Profile
from npreparam.certified.bounds.profile import largest, smallest, unit
from npreparam.certified.functions import narrowed
from npreparam.conformance.case import Case
from npreparam.conformance.signatures import outputs_of
from npreparam.conformance.target import Declaration

Array = NDArray[Any]
ELEMENTWISE = ("softplus", "sigmoid", "tanh", "silu")
WITH_FUNCTIONS = (*ELEMENTWISE, "log_softmax", "cross_entropy", "bce_with_logits", "normal_log_prob", "gaussian_kl")


class UnboundedError(ArgumentError):
    """An arithmetic does not apply to a case: it has no bound, since its accumulator does not have the case's numbers."""


class Truth(NamedTuple):
    """One result: its name, correctly rounded to the judged dtype and to float64, and the sound and likely bounds around the latter."""

    name: str
    rounded: Array
    value: NDArray[np.float64]
    bound: NDArray[np.float64]
    likely: NDArray[np.float64]


def expected(op: str, arguments: Mapping[str, Any], out_dtype: Any = "same") -> tuple[Array, ...]:
    """The correctly rounded results, as a tuple even of one.

    Raises what `certified` raises.

    >>> expected("tanh", {"x": np.zeros(1, np.float32)})
    (array([0.], dtype=float32),)
    """
    if op in ELEMENTWISE:
        x = arguments["x"] if out_dtype == "same" else arguments["x"].astype(out_dtype)
        value = getattr(certified, op)(x).value
    else:
        value = getattr(certified, op)(**arguments, out_dtype=out_dtype).value
    return value if len(outputs_of(op, arguments)) > 1 else (value,)


def bound(op: str, arguments: Mapping[str, Any], profile: Profile, declaration: Declaration | None = None) -> tuple[Array, ...]:
    """How far each result of an honest implementation may be from the exact one; NaN and infinities count as 0.

    Raises ArgumentError where the profile's algorithm does not have this function or geometry.
    """
    declaration = declaration or Declaration("")
    finite = {name: _finite(value) for name, value in arguments.items()}
    more = {"ulps": declaration.function_ulps} if op in WITH_FUNCTIONS else {}
    special = {"batch_norm": _batch_norm_bound, "batch_norm_grad": _batch_norm_grad_bound, "max_pool2d": _max_pool_bound,
               "fuse_conv_bn": _fuse_conv_bn_bound}
    function: Callable[..., Any] = special.get(op) or getattr(bounds, f"{op}_bound")
    if op in special:
        more = {"declaration": declaration}
    found = function(**finite, **more, profile=profile)
    return found if isinstance(found, tuple) else (found,)


def truths(case: Case, declaration: Declaration, profile: Profile | None = None) -> tuple[Truth, ...]:
    """All results of a case, with bounds by the profile, or by the one declared for the dtype of the case.

    Raises UnboundedError (the profile does not apply), and what `certified` raises for a case that is no valid question.
    """
    profile = profile or declaration.profile(case.dtype)
    dtype = np.dtype(next(iter(case.arrays().values())).dtype)
    values = _by_convention(case, declaration, conventional(case, declaration, np.float64))
    rounded = tuple(_narrowed(value, dtype) for value in values)
    if any(value is None for value in rounded):  # float64 hides a tie: so round once, from the exact value
        rounded = _by_convention(case, declaration, conventional(case, declaration))
    try:
        limits = _declared_bound(case, profile, declaration)
    except ArgumentError as error:
        raise UnboundedError(f"the arithmetic to judge by does not have these numbers: {error}") from None
    sound = around(values, limits)
    probable = sound if (model := _likely(profile)) is None else around(values, bound(case.op, case.arguments, model, declaration))
    return tuple(Truth(*row) for row in zip(outputs_of(case.op, case.arguments), rounded, values, sound, probable, strict=True))


def conventional(case: Case, declaration: Declaration, out_dtype: Any = "same") -> tuple[Array, ...]:
    """The correctly rounded results under the declared conventions on NaN and infinities."""
    arguments, nan = case.arguments, declaration.convention("max_pool_nan")
    if case.op == "max_pool2d" and nan != "propagate":
        x = arguments["x"]
        lowest = -np.inf if nan == "drop" else -largest(case.dtype)
        passed = np.where(np.isnan(x), -np.inf, x).astype(x.dtype)
        return tuple(np.maximum(y, y.dtype.type(lowest)) for y in expected(case.op, {**arguments, "x": passed}, out_dtype))
    if meets_padding(case) and declaration.convention("infinity_on_padding") == "multiply":
        w = arguments["w"].shape if case.op == "conv2d" else arguments["weight_shape"]
        x = arguments["x"]
        window = Window.of(tuple(w[2:]), arguments.get("stride", 1), arguments.get("padding", 0), arguments.get("dilation", 1), size=x.shape[2:])
        padded = np.pad(x, ((0, 0), (0, 0), *window.padding))
        return expected(case.op, {**arguments, "x": padded, "padding": 0}, out_dtype)
    return expected(case.op, arguments, out_dtype)


def meets_padding(case: Case) -> bool:
    """Whether an infinite or NaN weight, or a cotangent of weights, may meet zeros of the padding.

    >>> case = Case("conv2d", {"x": np.ones((1, 1, 1, 1)), "w": np.float64([[[[np.inf]]]]), "padding": 1})
    >>> meets_padding(case), meets_padding(Case("conv2d", {**case.arguments, "padding": 0}))
    (True, False)
    """
    factor = {"conv2d": "w", "conv2d_weight_grad": "gy"}.get(case.op)
    return factor is not None and "padding" in case.features() and not np.isfinite(case.arguments[factor]).all()


def around(values: tuple[Array, ...], limits: tuple[Array, ...]) -> tuple[Array, ...]:
    """Bounds around values that are themselves rounded to float64: half an ulp more."""
    with np.errstate(all="ignore"):
        return tuple(np.where(limit == 0, 0, np.nextafter(limit + unit("float64") * np.abs(value) + smallest("float64"), np.inf))
                     for value, limit in zip(values, limits, strict=True))


def _declared_bound(case: Case, profile: Profile, declaration: Declaration) -> tuple[Array, ...]:
    """By a transform where it applies, but an implementation may go the direct way, and must elsewhere."""
    direct = bound(case.op, case.arguments, dataclasses.replace(profile, algorithm="direct"), declaration)
    by_transform = None if profile.algorithm == "direct" else try_bound(case.op, case.arguments, profile, declaration)
    return direct if by_transform is None else tuple(np.maximum(*pair) for pair in zip(direct, by_transform, strict=True))


def _likely(profile: Profile) -> Profile | None:
    """The statistical level of a profile, where its errors have mean zero; not below 6 standard deviations."""
    honest = profile.order != "tensor_core" and not profile.flush_to_zero and profile.algorithm == "direct"
    return bounds.likely(profile) if honest else None


def _narrowed(value: Array, dtype: np.dtype[Any]) -> Array | None:
    """Rounded to the dtype, or None where a value is a tie, whose exact origin would decide."""
    if dtype == np.float64:
        return value
    with np.errstate(all="ignore"):
        result = narrowed(value, dtype)
        back = result.astype(np.float64)
        away = np.where(value > back, np.inf, -np.inf).astype(dtype)
        neighbour = np.nextafter(result, away).astype(np.float64)
        tie = (value != back) & (np.abs(value - back) == np.abs(neighbour - value))
    return None if tie.any() else result


def _finite(value: Any) -> Any:
    """The argument with NaN and infinities replaced by 0: a result that depends on one is none that a bound is asked about."""
    if isinstance(value, np.ndarray) and value.dtype.kind not in "iub":
        good = np.isfinite(value)
        return value if good.all() else np.where(good, value, value.dtype.type(0))
    return tuple(map(_finite, value)) if isinstance(value, tuple) else value


def _by_convention(case: Case, declaration: Declaration, values: tuple[Array, ...]) -> tuple[Array, ...]:
    """A running variance with the biased estimate: (1 - m)*old + m*(n - 1)/n*unbiased, from the unbiased update of float64 exactly enough."""
    if case.op != "batch_norm" or len(values) == 1 or declaration.running_variance == "unbiased":
        return values
    x, m = case.arguments["x"], case.arguments.get("momentum", 0.1)
    n, old = x.size // max(1, x.shape[1]), case.arguments["running_var"].astype(np.float64)
    estimate = expected("batch_norm", {**case.arguments, "running_var": np.zeros_like(case.arguments["running_var"]), "momentum": 1.0},
                        np.float64)[2]
    biased = (1 - m) * old + m * (estimate * ((n - 1) / n))
    return values[0], values[1], biased.astype(values[2].dtype)


def _batch_norm_bound(declaration: Declaration, profile: Profile, training: bool = False, momentum: float = 0.1, **rest: Any) -> Any:
    if not training:
        return bounds.batch_norm_eval_bound(**rest, profile=profile)
    mean, var, x = rest.pop("running_mean"), rest.pop("running_var"), rest["x"]
    return (bounds.batch_norm_train_bound(**rest, variance=declaration.variance, profile=profile),
            *bounds.running_bounds(x, mean, var, momentum, declaration.variance, profile))


def _batch_norm_grad_bound(declaration: Declaration, profile: Profile, **rest: Any) -> Any:
    return bounds.batch_norm_grad_bound(**rest, variance=declaration.variance, profile=profile)


def _max_pool_bound(declaration: Declaration, profile: Profile, **arguments: Any) -> Array:
    """Nothing is rounded, unless operands are."""
    x, moved = profile.operand(arguments["x"], "x")
    y = expected("max_pool2d", {**arguments, "x": x})[0]
    return np.full(y.shape, moved.max(initial=0))


def _fuse_conv_bn_bound(declaration: Declaration, profile: Profile, groups: int = 1, transposed: bool = False, **rest: Any) -> Any:
    if not transposed:
        return bounds.fuse_conv_bn_bound(**rest, profile=profile)
    w = rest.pop("w")  # (I, O/groups, kh, kw), with the output channel first
    inputs, share, *kernel = w.shape
    split = w.reshape(groups, inputs // groups, share, *kernel).swapaxes(1, 2).reshape(groups * share, inputs // groups, *kernel)
    of_w, of_b = bounds.fuse_conv_bn_bound(split, **rest, profile=profile)
    back = of_w.reshape(groups, share, inputs // groups, *kernel).swapaxes(1, 2).reshape(w.shape)
    return back, of_b


def try_bound(op: str, arguments: Mapping[str, Any], profile: Profile, declaration: Declaration) -> tuple[Array, ...] | None:
    """`bound`, or None where the profile does not apply to the arguments."""
    try:
        return bound(op, arguments, profile, declaration)
    except ArgumentError:
        return None
