"""Mistakes in folding batch norm and branches into one convolution."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam.conformance.mistakes._registry import counting, mistake, row
from npreparam.conformance.mistakes.conv2d import interleaved

BN = {"gamma": row(2), "beta": row(1), "mean": row(3), "var": row(4)}
FOLD = {"w": counting(1, 1, 1, 1, start=3), "b": row(5), **BN, "eps": 0.0}
TWO_GROUPS = {"w": counting(2, 2, 1, 1), "b": None, "gamma": row(1, 2, 3, 4), "beta": row(0, 0, 0, 0), "mean": row(0, 0, 0, 0),
              "var": row(1, 1, 1, 1), "eps": 0.0, "groups": 2, "transposed": True}


def scale_of(gamma: Any, var: Any, eps: float) -> Any:
    """gamma/sqrt(var + eps)."""
    return gamma / np.sqrt(var + eps)


def by_output(w: Any, scale: Any, groups: int, transposed: bool) -> Any:
    """The weights scaled along their output channels."""
    if not transposed:
        return w * scale.reshape(-1, 1, 1, 1)
    return (w.reshape(groups, w.shape[0] // groups, *w.shape[1:]) * scale.reshape(groups, 1, -1, 1, 1)).reshape(w.shape)


def folded(w: Any, b: Any, scale: Any, shift: Any, groups: int, transposed: bool) -> Any:
    """(w*scale, b*scale + shift)."""
    return by_output(w, scale, groups, transposed), shift if b is None else b * scale + shift


def with_scale(scale: Any) -> Any:
    """A mistake: another scale, of gamma, var and eps, in weights and bias."""
    def wrong(right: Any, w: Any, b: Any, gamma: Any, beta: Any, mean: Any, var: Any, eps: float, groups: int, transposed: bool) -> Any:
        s = scale(gamma, var, eps)
        return folded(w, b, s, beta - mean * s, groups, transposed)

    return wrong


def with_bias(bias: Any) -> Any:
    """A mistake: another bias, of b (0 where there is none), beta, mean and the scale; the weights are right."""
    def wrong(right: Any, w: Any, b: Any, gamma: Any, beta: Any, mean: Any, var: Any, eps: float, groups: int, transposed: bool) -> Any:
        s = scale_of(gamma, var, eps)
        return by_output(w, s, groups, transposed), bias(np.zeros_like(beta) if b is None else b, beta, mean, s)

    return wrong


def _first_axis(right: Any, w: Any, groups: int, transposed: bool, **a: Any) -> Any:
    """The weights of a transposed convolution scaled along axis 0, which counts input channels."""
    _, bias = right.fuse_conv_bn(w=w, groups=groups, transposed=transposed, **a)
    scale = scale_of(a["gamma"], a["var"], a["eps"])
    return w * scale[np.arange(w.shape[0]) % len(scale)].reshape(-1, 1, 1, 1), bias


def _no_group_offset(right: Any, w: Any, groups: int, transposed: bool, **a: Any) -> Any:
    """The channel's scale looked up without the offset of its group."""
    _, bias = right.fuse_conv_bn(w=w, groups=groups, transposed=transposed, **a)
    scale = scale_of(a["gamma"], a["var"], a["eps"])
    return by_output(w, scale[np.arange(len(scale)) % (len(scale) // groups)], groups, transposed), bias


def _along_inputs(right: Any, w: Any, **a: Any) -> Any:
    """The scale along axis 1, where its length fits."""
    return w * scale_of(a["gamma"], a["var"], a["eps"]).reshape(1, -1, 1, 1), right.fuse_conv_bn(w=w, **a)[1]


mistake("fuse_conv_bn", "bias of the convolution left out", with_bias(lambda b, beta, mean, s: beta - mean * s), seen="yolov3#807 (KNOWN_BUGS 23)",
        look="b' = beta + (b - mean)*s", example=FOLD)
mistake("fuse_conv_bn", "scale looked up without the group's offset", _no_group_offset, seen="LeViT#22 (KNOWN_BUGS 24)",
        look="the output channel of a group", example={"w": counting(2, 1, 1, 1), "b": None, "gamma": row(1, 2), "beta": row(0, 0), "mean": row(0, 0),
                                                       "var": row(1, 1), "eps": 0.0, "groups": 2})
mistake("fuse_conv_bn", "scale dealt out to groups in turn", lambda right, w, gamma, var, eps, groups, transposed, **a: (
        by_output(w, interleaved(scale_of(gamma, var, eps), groups, 0), groups, transposed),
        right.fuse_conv_bn(w=w, gamma=gamma, var=var, eps=eps, groups=groups, transposed=transposed, **a)[1]),
        look="output channels of a group are neighbours", example=TWO_GROUPS)
mistake("fuse_conv_bn", "transposed convolution scaled along its inputs", _first_axis,
        seen="pytorch#180995, ultralytics#25364 (KNOWN_BUGS 25)", look="w is (in, out/groups, kh, kw)", example=TWO_GROUPS)
mistake("fuse_conv_bn", "scaled along the input channels", _along_inputs, look="the axis that the scale is broadcast along",
        example={"w": counting(2, 2, 1, 1), "b": None, "gamma": row(1, 2), "beta": row(0, 0), "mean": row(0, 0), "var": row(1, 1), "eps": 0.0})
mistake("fuse_conv_bn", "eps outside the root", with_scale(lambda gamma, var, eps: gamma / (np.sqrt(var) + eps)), look="sqrt(var + eps)",
        example={**FOLD, "eps": 1.0})
mistake("fuse_conv_bn", "eps left out", with_scale(lambda gamma, var, eps: gamma / np.sqrt(var)), look="eps", example={**FOLD, "eps": 1.0})
mistake("fuse_conv_bn", "eps 1e-5 whatever is asked for", with_scale(lambda gamma, var, eps: gamma / np.sqrt(var + 1e-5)), look="eps of the layer",
        example={**FOLD, "eps": 1.0})
mistake("fuse_conv_bn", "divided by the variance", with_scale(lambda gamma, var, eps: gamma / (var + eps)), look="the root", example=FOLD)
mistake("fuse_conv_bn", "multiplied by the standard deviation", with_scale(lambda gamma, var, eps: gamma * np.sqrt(var + eps)),
        look="the quotient", example=FOLD)
mistake("fuse_conv_bn", "gamma left out", with_scale(lambda gamma, var, eps: 1.0 / np.sqrt(var + eps)), look="gamma", example=FOLD)
mistake("fuse_conv_bn", "beta left out", with_bias(lambda b, beta, mean, s: (b - mean) * s), look="b' = beta + (b - mean)*s", example=FOLD)
mistake("fuse_conv_bn", "mean left out", with_bias(lambda b, beta, mean, s: beta + b * s), look="b' = beta + (b - mean)*s", example=FOLD)
mistake("fuse_conv_bn", "mean not scaled", with_bias(lambda b, beta, mean, s: beta + b * s - mean), look="b' = beta + (b - mean)*s",
        example={**FOLD, "gamma": row(4)})
mistake("fuse_conv_bn", "bias of the convolution not scaled", with_bias(lambda b, beta, mean, s: beta + b - mean * s),
        look="b' = beta + (b - mean)*s", example={**FOLD, "gamma": row(4)})
mistake("fuse_conv_bn", "mean added", with_bias(lambda b, beta, mean, s: beta + (b + mean) * s), look="the mean's sign", example=FOLD)
mistake("fuse_conv_bn", "beta scaled", with_bias(lambda b, beta, mean, s: (beta + b - mean) * s), look="b' = beta + (b - mean)*s",
        example={**FOLD, "gamma": row(4)})
mistake("fuse_conv_bn", "weights not scaled", lambda right, w, **a: (w * 1.0, right.fuse_conv_bn(w=w, **a)[1]), look="w' = w*s",
        example={**FOLD, "gamma": row(4)})

ONE = (row(1), row(0), row(0), row(1), 0.0)  # changes nothing
BLOCK = {"w3": counting(1, 1, 3, 3), "bn3": ONE, "w1": counting(1, 1, 1, 1), "bn1": ONE}
SHIFTED = (row(3), row(5), row(2), row(4), 0.0)


def _added(right: Any, kernel: Any, bn: Any, a: dict[str, Any]) -> Any:
    """The right block without its identity, and a kernel of float64 scaled by `bn` in that place."""
    w, b = right.fuse_repvgg(**{**a, "bn_identity": None})
    if bn is None:
        return w, b
    scale = scale_of(bn[0], bn[3], bn[4])
    return w + kernel.astype(np.float32) * scale.reshape(-1, 1, 1, 1), b + (bn[1] - bn[2] * scale)


def identity(a: dict[str, Any], channel: Any) -> Any:
    """The kernel of ones in the centre, at the input channels of a rule."""
    outputs, inputs = a["w3"].shape[:2]
    kernel = np.zeros((outputs, inputs, 3, 3))
    for o in range(outputs):
        if channel(o) < inputs:
            kernel[o, channel(o), 1, 1] = 1
    return kernel


def _neutral(bn: Any) -> Any:
    """A batch norm that changes nothing, of the same channels."""
    one, zero = np.full_like(bn[0], 1.0), np.zeros_like(bn[0])
    return one, zero, zero, one, 0.0


def _cornered(right: Any, w3: Any, bn3: Any, w1: Any, bn1: Any, **a: Any) -> Any:
    w, b = right.fuse_repvgg(w3=w3, bn3=bn3, w1=w1, bn1=bn1, **a)
    one = w1 * scale_of(bn1[0], bn1[3], bn1[4]).reshape(-1, 1, 1, 1)
    frame = ((0, 0), (0, 0))
    return w - np.pad(one, (*frame, (1, 1), (1, 1))) + np.pad(one, (*frame, (0, 2), (0, 2))), b


def _without_bias(right: Any, which: str, **a: Any) -> Any:
    """One branch's batch norm without its shift."""
    bn = a[which]
    return right.fuse_repvgg(**{**a, which: None if bn is None else (bn[0], np.zeros_like(bn[1]), np.zeros_like(bn[2]), *bn[3:])})


mistake("fuse_repvgg", "1x1 kernel in the corner", _cornered, seen="KNOWN_BUGS 26", look="pad by one on all sides", example=BLOCK)
mistake("fuse_repvgg", "identity of nine ones", lambda right, bn_identity, **a: _added(
        right, np.tile(identity(a, lambda o: o % a["w3"].shape[1])[..., 1:2, 1:2], (3, 3)), bn_identity, a), seen="KNOWN_BUGS 26",
        look="one in the centre, zero elsewhere", example={**BLOCK, "bn_identity": ONE})
mistake("fuse_repvgg", "identity without the group's offset", lambda right, bn_identity, **a: _added(
        right, identity(a, lambda o: o), bn_identity, a), seen="KNOWN_BUGS 26", look="input channel o mod (C/groups)",
        example={"w3": counting(2, 1, 3, 3), "w1": counting(2, 1, 1, 1), "groups": 2,
                 **dict.fromkeys(("bn3", "bn1", "bn_identity"), (row(1, 1), row(0, 0), row(0, 0), row(1, 1), 0.0))})
mistake("fuse_repvgg", "identity for the first input channel only", lambda right, bn_identity, **a: _added(
        right, identity(a, lambda o: 0), bn_identity, a), look="input channel o mod (C/groups)",
        example={"w3": counting(2, 2, 3, 3), "w1": counting(2, 2, 1, 1),
                 **dict.fromkeys(("bn3", "bn1", "bn_identity"), (row(1, 1), row(0, 0), row(0, 0), row(1, 1), 0.0))})
mistake("fuse_repvgg", "identity left out", lambda right, bn_identity, **a: right.fuse_repvgg(bn_identity=None, **a), look="the third branch",
        example={**BLOCK, "bn_identity": ONE})
mistake("fuse_repvgg", "identity without its batch norm", lambda right, bn_identity, **a: _added(
        right, identity(a, lambda o: o % a["w3"].shape[1]), bn_identity and _neutral(bn_identity), a), look="the identity's batch norm",
        example={**BLOCK, "bn_identity": SHIFTED})
mistake("fuse_repvgg", "1x1 branch left out", lambda right, w1, **a: right.fuse_repvgg(w1=np.zeros_like(w1), **a), look="the second branch",
        example=BLOCK)
mistake("fuse_repvgg", "1x1 branch left out, shift too",
        lambda right, w1, bn1, **a: right.fuse_repvgg(
        w1=np.zeros_like(w1), bn1=(bn1[0], np.zeros_like(bn1[1]), np.zeros_like(bn1[2]), *bn1[3:]), **a), look="the second branch",
        example={**BLOCK, "bn1": SHIFTED})
mistake("fuse_repvgg", "batch norm of the 3x3 branch used for all", lambda right, bn3, bn1, bn_identity, **a: right.fuse_repvgg(
        bn3=bn3, bn1=bn3, bn_identity=bn_identity and bn3, **a), look="each branch has its own batch norm", example={**BLOCK, "bn1": SHIFTED})
mistake("fuse_repvgg", "eps of the 3x3 branch used for all", lambda right, bn3, bn1, bn_identity, **a: right.fuse_repvgg(
        bn3=bn3, bn1=(*bn1[:4], bn3[4]), bn_identity=bn_identity and (*bn_identity[:4], bn3[4]), **a), look="each branch has its own eps",
        example={**BLOCK, "bn1": (*ONE[:4], 3.0)})
mistake("fuse_repvgg", "shift of the identity left out", lambda right, **a: _without_bias(right, "bn_identity", **a), look="the sum of the shifts",
        example={**BLOCK, "bn_identity": SHIFTED})
mistake("fuse_repvgg", "shift of the 1x1 branch left out", lambda right, **a: _without_bias(right, "bn1", **a), look="the sum of the shifts",
        example={**BLOCK, "bn1": SHIFTED})
mistake("fuse_repvgg", "3x3 kernel flipped", lambda right, w3, **a: right.fuse_repvgg(w3=w3[..., ::-1, ::-1], **a), look="order of the taps",
        example=BLOCK)
