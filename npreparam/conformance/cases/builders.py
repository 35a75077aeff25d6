"""Arguments for every function, drawn from a source: small geometries of all kinds, simplest first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npreparam._shapes import Window
from npreparam.conformance.cases.sources import Source

Arguments = dict[str, Any]
PADDINGS = ("numbers", "numbers", "numbers", "SAME_UPPER", "SAME_LOWER", "VALID")


def _pair(source: Source, low: int, high: int) -> tuple[int, int]:
    return source.integer(low, high), source.integer(low, high)


def conv_geometry(source: Source) -> Arguments:
    """`x_shape`, `w_shape` and the attributes of a convolution with at least one output."""
    groups = source.choice((1, 1, 2, 3))
    kernel, stride, dilation = _pair(source, 1, 4), _pair(source, 1, 3), source.choice(((1, 1), (1, 1), (2, 1), (1, 2), (2, 3)))
    inputs, outputs, batch = source.integer(1, 3), groups * source.integer(1, 3), source.integer(1, 3)
    out, name = _pair(source, 1, 4), source.choice(PADDINGS)
    padding, size = [], []
    for k, s, d, n in zip(kernel, stride, dilation, out, strict=True):
        covered = (n - 1) * s + d * (k - 1) + 1 + source.integer(0, s - 1)  # with a remainder that no window reaches
        before = source.integer(0, min(2, covered - 1)) if name == "numbers" else 0
        after = source.integer(0, min(2, covered - 1 - before)) if name == "numbers" else 0
        padding.append((before, after))
        size.append(covered - before - after)
    return {"x_shape": (batch, groups * inputs, *size), "w_shape": (outputs, inputs, *kernel), "stride": stride,
            "padding": tuple(padding) if name == "numbers" else name, "dilation": dilation, "groups": groups}


def _attributes(geometry: Arguments) -> Arguments:
    """The attributes that are not the defaults."""
    plain = {"stride": (1, 1), "dilation": (1, 1), "groups": 1, "padding": ((0, 0), (0, 0))}
    return {name: geometry[name] for name in plain if name in geometry and geometry[name] not in (plain[name], 0)}


def _window(geometry: Arguments) -> Window:
    rest = {name: geometry.get(name, 0 if name == "padding" else 1) for name in ("stride", "padding", "dilation", "groups")}
    return Window.of(geometry["w_shape"][2:], **rest, size=geometry["x_shape"][2:])


def _output_shape(geometry: Arguments) -> tuple[int, ...]:
    return (geometry["x_shape"][0], geometry["w_shape"][0], *_window(geometry).output_size(geometry["x_shape"][2:]))


def conv2d(source: Source, geometry: Arguments) -> Arguments:
    """Forward, with a bias or without."""
    arrays = {"x": source.array(geometry["x_shape"], "first"), "w": source.array(geometry["w_shape"])}
    bias = {"b": source.array(geometry["w_shape"][:1])} if source.choice((False, True)) else {}
    return {**arrays, **bias, **_attributes(geometry)}


def conv2d_input_grad(source: Source, geometry: Arguments) -> Arguments:
    """With respect to the input."""
    return {"gy": source.array(_output_shape(geometry), "first"), "w": source.array(geometry["w_shape"], along=0),
            "input_shape": geometry["x_shape"], **_attributes(geometry)}


def conv2d_weight_grad(source: Source, geometry: Arguments) -> Arguments:
    """With respect to the weights."""
    return {"gy": source.array(_output_shape(geometry), "first", along=0), "x": source.array(geometry["x_shape"], along=0),
            "weight_shape": geometry["w_shape"], **_attributes(geometry)}


def conv_transpose2d(source: Source, geometry: Arguments) -> Arguments:
    """The adjoint of the convolution of that geometry, with what its input lost by the stride as output padding."""
    window, shape = _window(geometry), _output_shape(geometry)
    lost = tuple(n - m for n, m in zip(geometry["x_shape"][2:], window.transposed_size(shape[2:]), strict=True))
    geometry = {**geometry, "padding": window.padding}
    more = {"output_padding": lost} if any(lost) and all(0 <= n < s for n, s in zip(lost, window.stride, strict=True)) else {}
    if min(window.transposed_size(shape[2:])) < 1:
        geometry["padding"] = ((0, 0), (0, 0))
        more = {}
    bias = {"b": source.array((geometry["w_shape"][1] * window.groups,))} if source.choice((False, True)) else {}
    return {"x": source.array(shape, "first"), "w": source.array(geometry["w_shape"], along=0), **bias, **_attributes(geometry), **more}


def pool_geometry(source: Source) -> Arguments:
    """`x_shape` and the attributes of a pooling with at least one output."""
    kernel, stride, out = _pair(source, 1, 3), _pair(source, 1, 3), _pair(source, 1, 3)
    padding, size = [], []
    for k, s, n in zip(kernel, stride, out, strict=True):
        covered = (n - 1) * s + k + source.integer(0, s - 1)
        before = source.integer(0, min(k - 1, covered - 1))
        after = source.integer(0, min(k - 1, covered - 1 - before))
        padding.append((before, after))
        size.append(covered - before - after)
    return {"x_shape": (source.integer(1, 2), source.integer(1, 3), *size), "kernel": kernel, "stride": stride, "padding": tuple(padding)}


def max_pool2d(source: Source, geometry: Arguments) -> Arguments:
    """Any window."""
    return {"x": source.array(geometry["x_shape"], "first"), **{name: value for name, value in geometry.items() if name != "x_shape"}}


def avg_pool2d(source: Source, geometry: Arguments) -> Arguments:
    """Any window, padding counted or not."""
    counted = {} if "count_include_pad" in geometry or source.choice((True, False)) else {"count_include_pad": False}
    return {**max_pool2d(source, geometry), **counted}


def shape_of_batch(source: Source) -> Arguments:
    """`shape` of what a batch norm takes."""
    if source.choice((False, False, True)):
        return {"shape": (source.integer(2, 9), source.integer(1, 4))}
    return {"shape": (source.integer(1, 4), source.integer(1, 4), source.integer(1, 5), source.integer(2, 5))}


def _norm(source: Source, channels: int) -> Arguments:
    return {"gamma": source.array((channels,)), "beta": source.array((channels,)), "running_mean": source.array((channels,)),
            "running_var": source.array((channels,), "positive")}


def batch_norm(source: Source, geometry: Arguments) -> Arguments:
    """By the running statistics or those of the batch."""
    shape = geometry["shape"]
    training = shape[0] > 0 and np.prod(shape) // shape[1] > 1 and geometry.get("training", source.choice((False, True)))
    options: Arguments = {"training": True} if training else {}
    if training and (momentum := source.choice((None, 0.25, 0.875, 1.0))) is not None:
        options["momentum"] = momentum
    if (eps := source.choice((None, 1e-3, 0.5))) is not None:
        options["eps"] = eps
    return {"x": source.array(shape, "first"), **_norm(source, shape[1]), **options}


def batch_norm_grad(source: Source, geometry: Arguments) -> Arguments:
    """The same, backwards."""
    given = batch_norm(source, geometry)
    gy = source.array(geometry["shape"])
    return {"gy": gy, **{name: value for name, value in given.items() if name not in ("beta", "momentum")}}


def matrix_geometry(source: Source) -> Arguments:
    """`shape` (batch, inputs, outputs)."""
    return {"shape": (source.integer(1, 5), source.integer(1, 40), source.integer(1, 5))}


def linear(source: Source, geometry: Arguments) -> Arguments:
    """With a bias or without."""
    n, inputs, outputs = geometry["shape"]
    bias = {"b": source.array((outputs,))} if source.choice((False, True)) else {}
    return {"x": source.array((n, inputs), "first"), "w": source.array((outputs, inputs)), **bias}


def _bn(source: Source, channels: int) -> tuple[Any, ...]:
    gamma, beta, mean, var = _norm(source, channels).values()
    return gamma, beta, mean, var, source.choice((1e-5, 1e-3, 0.0))


def fuse_geometry(source: Source) -> Arguments:
    """`w_shape`, groups, and whether it is transposed."""
    groups, inputs, outputs = source.choice((1, 2, 3)), source.integer(1, 3), source.integer(1, 3)
    transposed = source.choice((False, True))
    first, second = (groups * inputs, outputs) if transposed else (groups * outputs, inputs)
    return {"w_shape": (first, second, *_pair(source, 1, 3)), "groups": groups, "transposed": transposed}


def fuse_conv_bn(source: Source, geometry: Arguments) -> Arguments:
    """A convolution, or a transposed one, and a batch norm."""
    w, groups, transposed = geometry["w_shape"], geometry.get("groups", 1), geometry.get("transposed", False)
    gamma, beta, mean, var, eps = _bn(source, w[1] * groups if transposed else w[0])
    bias = source.array(gamma.shape) if source.choice((False, True)) else None
    options = ({"groups": groups} if groups > 1 else {}) | ({"transposed": True} if transposed else {}) | ({} if eps == 1e-5 else {"eps": eps})
    return {"w": source.array(w), "b": bias, "gamma": gamma, "beta": beta, "mean": mean, "var": var, **options}


def repvgg_geometry(source: Source) -> Arguments:
    """`w_shape` of the 3x3 kernel, and groups."""
    groups, share = source.choice((1, 2, 3)), source.integer(1, 3)
    return {"w_shape": (groups * source.choice((share, source.integer(1, 3))), share, 3, 3), "groups": groups}


def fuse_repvgg(source: Source, geometry: Arguments) -> Arguments:
    """With an identity branch where there can be one."""
    (outputs, inputs, *_), groups = geometry["w_shape"], geometry.get("groups", 1)
    identity = {"bn_identity": _bn(source, outputs)} if outputs == inputs * groups and source.choice((True, True, False)) else {}
    return {"w3": source.array(geometry["w_shape"]), "bn3": _bn(source, outputs), "w1": source.array((outputs, inputs, 1, 1)),
            "bn1": _bn(source, outputs), **identity, **({"groups": groups} if groups > 1 else {})}


def shape_of_elements(source: Source) -> Arguments:
    """`shape` of an elementwise function's arguments."""
    return {"shape": source.choice(((1,), (7,), (3, 5), (2, 3, 2, 5), (67,)))}


def unary(source: Source, geometry: Arguments) -> Arguments:
    """One argument, x, some of them far out."""
    x = source.array(geometry["shape"], "first")
    with np.errstate(all="ignore"):
        scaled = x * x.dtype.type(source.choice((1, 1, 10, 40)))
    return {"x": x if np.isinf(scaled).any() else scaled}


def rows_geometry(source: Source) -> Arguments:
    """`shape` (samples, classes)."""
    return {"shape": (source.integer(1, 5), source.choice((2, 3, 10, 1, 67)))}


def cross_entropy(source: Source, geometry: Arguments) -> Arguments:
    """Logits, and a label for each row."""
    n, classes = geometry["shape"]
    return {"logits": source.array((n, classes), "first"), "labels": np.array([source.integer(0, classes - 1) for _ in range(n)], np.int64)}


def bce_with_logits(source: Source, geometry: Arguments) -> Arguments:
    """Logits, and targets within [0, 1]."""
    return {"logits": unary(source, geometry)["x"], "targets": source.array(geometry["shape"], "target")}


def normal_rsample(source: Source, geometry: Arguments) -> Arguments:
    """Mean, deviation and noise."""
    shape = geometry["shape"]
    return {"mu": source.array(shape, "first"), "sigma": source.array(shape, "positive"), "eps": source.array(shape)}


def normal_log_prob(source: Source, geometry: Arguments) -> Arguments:
    """Value, mean and deviation."""
    shape = geometry["shape"]
    return {"x": source.array(shape, "first"), "mu": source.array(shape), "sigma": source.array(shape, "positive")}


def gaussian_kl(source: Source, geometry: Arguments) -> Arguments:
    """Mean and logarithm of the variance."""
    return {"mu": source.array(geometry["shape"], "first"), "logvar": source.array(geometry["shape"])}


Geometry, Builder = Callable[[Source], Arguments], Callable[[Source, Arguments], Arguments]
BUILDERS: dict[str, tuple[Geometry, Builder]] = {
    "conv2d": (conv_geometry, conv2d),
    "conv2d_input_grad": (conv_geometry, conv2d_input_grad),
    "conv2d_weight_grad": (conv_geometry, conv2d_weight_grad),
    "conv_transpose2d": (conv_geometry, conv_transpose2d),
    "linear": (matrix_geometry, linear),
    "batch_norm": (shape_of_batch, batch_norm),
    "batch_norm_grad": (shape_of_batch, batch_norm_grad),
    "avg_pool2d": (pool_geometry, avg_pool2d),
    "max_pool2d": (pool_geometry, max_pool2d),
    "fuse_conv_bn": (fuse_geometry, fuse_conv_bn),
    "fuse_repvgg": (repvgg_geometry, fuse_repvgg),
    "softplus": (shape_of_elements, unary),
    "sigmoid": (shape_of_elements, unary),
    "tanh": (shape_of_elements, unary),
    "silu": (shape_of_elements, unary),
    "log_softmax": (rows_geometry, unary),
    "cross_entropy": (rows_geometry, cross_entropy),
    "bce_with_logits": (shape_of_elements, bce_with_logits),
    "normal_rsample": (shape_of_elements, normal_rsample),
    "normal_log_prob": (shape_of_elements, normal_log_prob),
    "gaussian_kl": (shape_of_elements, gaussian_kl),
}
