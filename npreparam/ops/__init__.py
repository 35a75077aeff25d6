"""Primitives: functions over NumPy arrays, each with its gradient beside it; called with tape Tensors they record themselves."""

from npreparam.ops.activation import leaky_relu, relu, sigmoid, silu, softplus, tanh
from npreparam.ops.arithmetic import add, broadcast_to, div, exp, expm1, log, log1p, mul, neg, sqrt, square, sub, unbroadcast
from npreparam.ops.batch_norm import batch_norm, batch_norm_grad
from npreparam.ops.conv2d import conv2d, conv2d_input_grad, conv2d_relu, conv2d_weight_grad, conv_transpose2d
from npreparam.ops.im2col import col2im, im2col
from npreparam.ops.linear import linear, matmul
from npreparam.ops.loss import bce_with_logits, cross_entropy, log_softmax, logsumexp, softmax
from npreparam.ops.pool import avg_pool2d, global_avg_pool, max_pool2d
from npreparam.ops.sampling import gaussian_kl, normal_log_prob, normal_rsample
from npreparam.ops.select import abs, arctan, cos, sign, sin, where
from npreparam.ops.shape import concat, getitem, mean, pad, reshape, sum, transpose
from npreparam.ops.xlogy import log_ratio, xdivy, xlog1py, xlogy

__all__ = [
    "abs", "add", "arctan", "avg_pool2d", "batch_norm", "batch_norm_grad", "bce_with_logits", "broadcast_to", "col2im",
    "concat", "conv2d", "conv2d_input_grad", "conv2d_relu", "conv2d_weight_grad", "conv_transpose2d", "cos",
    "cross_entropy", "div", "exp", "expm1", "gaussian_kl", "getitem", "global_avg_pool", "im2col", "leaky_relu",
    "linear", "log", "log1p", "log_ratio", "log_softmax", "logsumexp", "matmul", "max_pool2d", "mean", "mul", "neg",
    "normal_log_prob", "normal_rsample", "pad", "relu", "reshape", "sigmoid", "sign", "silu", "sin", "softmax",
    "softplus", "sqrt", "square", "sub", "sum", "tanh", "transpose", "unbroadcast", "where", "xdivy", "xlog1py",
    "xlogy",
]
