"""npreparam itself: its primitives and its folding."""

from __future__ import annotations

from npreparam import __version__
from npreparam.conformance.target import Declaration
from npreparam.fuse import fuse_conv_bn, fuse_repvgg
from npreparam.kernels._threads import set_num_threads as set_threads
from npreparam.ops import (
    avg_pool2d,
    batch_norm,
    batch_norm_grad,
    bce_with_logits,
    conv2d,
    conv2d_input_grad,
    conv2d_weight_grad,
    conv_transpose2d,
    cross_entropy,
    gaussian_kl,
    linear,
    log_softmax,
    max_pool2d,
    normal_log_prob,
    normal_rsample,
    sigmoid,
    silu,
    softplus,
    tanh,
)

declaration = Declaration("npreparam", __version__)

__all__ = ["avg_pool2d", "batch_norm", "batch_norm_grad", "bce_with_logits", "conv2d", "conv2d_input_grad", "conv2d_weight_grad",
           "conv_transpose2d", "cross_entropy", "declaration", "fuse_conv_bn", "fuse_repvgg", "gaussian_kl", "linear", "log_softmax", "max_pool2d",
           "normal_log_prob", "normal_rsample", "set_threads", "sigmoid", "silu", "softplus", "tanh"]
