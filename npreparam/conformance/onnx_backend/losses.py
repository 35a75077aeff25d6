"""Softmax and its losses, batch and instance normalization."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from npreparam import ops
from npreparam.conformance.onnx_backend.node import Array, Node, computed
from npreparam.ops.batch_norm import batch_norm_train
from npreparam.ops.loss import pick

REDUCTIONS = ("mean", "sum", "none")


def over_axis(function: Callable[[Array, int], Array]) -> Callable[[Node], Array]:
    """A row for Softmax or LogSoftmax: along one axis, or before operator set 13 over all axes from `axis` on, flattened."""
    def row(node: Node) -> Array:
        x = node.input(0)
        if node.version >= 13:
            return computed(lambda x: function(x, node.get("axis", -1)), x)
        axis = node.get("axis", 1) % x.ndim
        flat = x.reshape(math.prod(x.shape[:axis]), -1)
        return computed(lambda x: function(x, -1), flat).reshape(x.shape)
    return row


def _reduced(node: Node, scores: Array, labels: Array, weights: Array | None) -> Array:
    """-w[label]*score[label] of every place, 0 where the label is `ignore_index`; as they are, summed, or divided by the sum of the weights."""
    node.refuse("reduction", *REDUCTIONS)
    kept = labels != node.get("ignore_index", None)
    chosen = np.where(kept, labels, 0)
    of_class = np.ones(scores.shape[1], scores.dtype) if weights is None else weights
    weight = np.where(kept, of_class[chosen], 0).astype(scores.dtype)
    classes = np.moveaxis(scores, 1, -1)
    picked = pick(classes.reshape(-1, classes.shape[-1]), chosen.ravel()).reshape(labels.shape)
    loss = np.where(kept, ops.neg(ops.mul(picked, weight)), scores.dtype.type(0))
    reduction = node.get("reduction", "mean")
    if reduction == "none":
        return loss
    return ops.sum(loss) if reduction == "sum" else ops.div(ops.sum(loss), ops.sum(weight))


def cross_entropy(node: Node) -> tuple[Array, Array]:
    """SoftmaxCrossEntropyLoss: the loss, and the logarithms of the probabilities."""
    labels = node.input(1)

    def losses(x: Array, weights: Array | None) -> tuple[Array, Array]:
        scores = ops.log_softmax(x, axis=1)
        return _reduced(node, scores, labels, weights), scores

    return computed(losses, node.input(0), node.input(2))


def negative_log_likelihood(node: Node) -> Array:
    """NegativeLogLikelihoodLoss."""
    return computed(lambda x, weights: _reduced(node, x, node.input(1), weights), node.input(0), node.input(2))


def _as_planes(x: Array) -> Array:
    """(N, C, ...) as (N, C, H, 1)."""
    return x.reshape(*x.shape[:2], -1, 1)


def batch_normalization(node: Node) -> tuple[Array, ...]:
    """BatchNormalization; ONNX's momentum is the weight of the *old* statistic, and its running variance is blended with the biased one."""
    node.refuse("spatial", 1)
    if node.version < 7:
        node.refuse("is_test", 1)  # whose default is 0
    x, old = node.input(0), node.get("momentum", 0.9)
    training = node.get("training_mode", 0) or (node.version < 14 and node.outputs > 1)
    eps = node.get("epsilon", 1e-5)

    def normalized(x: Array, gamma: Array, beta: Array, mean: Array, var: Array) -> tuple[Array, ...]:
        planes = _as_planes(x)
        if not training:
            return (ops.batch_norm(planes, gamma, beta, mean, var, eps=eps).reshape(x.shape),)
        y, batch_mean, batch_var = batch_norm_train(planes, gamma, beta, eps)
        return (y.reshape(x.shape), *(ops.add(ops.mul(a, old), ops.mul(b, 1 - old)) for a, b in ((mean, batch_mean), (var, batch_var))))

    return computed(normalized, x, *node.inputs[1:5])


def instance_normalization(node: Node) -> Array:
    """InstanceNormalization: batch normalization of training with every channel of every image for itself."""
    def normalized(x: Array, gamma: Array, beta: Array) -> Array:
        n = len(x)
        alone = x.reshape(1, n * x.shape[1], -1, 1)
        mean, var = np.zeros_like(gamma), np.ones_like(gamma)
        y, *_ = ops.batch_norm(alone, np.tile(gamma, n), np.tile(beta, n), np.tile(mean, n), np.tile(var, n), training=True,
                               eps=node.get("epsilon", 1e-5))
        return y.reshape(x.shape)

    return computed(normalized, *node.inputs)
