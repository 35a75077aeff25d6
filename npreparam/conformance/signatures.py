"""The functions that a target may offer: their names, arguments and defaults, which are those of `npreparam.certified`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from npreparam import certified
from npreparam._errors import ArgumentError

OPS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad", "conv_transpose2d", "linear", "batch_norm", "batch_norm_grad", "avg_pool2d",
       "max_pool2d", "fuse_conv_bn", "fuse_repvgg", "softplus", "sigmoid", "tanh", "silu", "log_softmax", "cross_entropy", "bce_with_logits",
       "normal_rsample", "normal_log_prob", "gaussian_kl")
OUTPUTS = {"batch_norm_grad": ("gx", "ggamma", "gbeta"), "fuse_conv_bn": ("w", "b"), "fuse_repvgg": ("w", "b")}
REQUIRED = inspect.Parameter.empty


def _parameters(op: str) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(getattr(certified, op)).parameters.items() if name != "out_dtype"}


PARAMETERS: Mapping[str, Mapping[str, Any]] = {op: _parameters(op) for op in OPS}


def outputs_of(op: str, arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the results: one, or several where the function returns a tuple.

    >>> outputs_of("batch_norm", {"training": True})
    ('y', 'running_mean', 'running_var')
    """
    if op == "batch_norm" and arguments.get("training"):
        return "y", "running_mean", "running_var"
    return OUTPUTS.get(op, ("y",))


def bound_arguments(op: str, arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """(positional, keywords) of a call: what has no default by position, the rest by name, where it was given at all.

    Raises ArgumentError (no such function, an unknown or missing argument).

    >>> bound_arguments("avg_pool2d", {"x": 1, "kernel": 2, "padding": 3})
    ([1, 2], {'padding': 3})
    """
    if op not in PARAMETERS:
        raise ArgumentError(f"`op` (={op!r}) must be one of {', '.join(OPS)}")
    parameters = PARAMETERS[op]
    for name in arguments:
        if name not in parameters:
            raise ArgumentError(f"`{name}` is no argument of {op}, which has {', '.join(parameters)}")
    for name, default in parameters.items():
        if default is REQUIRED and name not in arguments:
            raise ArgumentError(f"`{name}` is missing in a call of {op}")
    return ([arguments[name] for name, default in parameters.items() if default is REQUIRED],
            {name: arguments[name] for name, default in parameters.items() if default is not REQUIRED and name in arguments})
