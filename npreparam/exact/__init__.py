"""The truth: definitions in exact arithmetic, rounded once. Slow, short, obviously right; no Numba, no kernels."""

from npreparam.exact.activation import exp, expm1, leaky_relu, log, log1p, relu, sigmoid, silu, softplus, sqrt, tanh
from npreparam.exact.arithmetic import mean, sum
from npreparam.exact.batch_norm import batch_norm, batch_norm_grad
from npreparam.exact.conv2d import conv2d, conv2d_input_grad, conv2d_weight_grad, conv_transpose2d
from npreparam.exact.fuse import fuse_conv_bn, fuse_repvgg
from npreparam.exact.linear import linear, matmul
from npreparam.exact.loss import bce_with_logits, cross_entropy, log_softmax
from npreparam.exact.pool import avg_pool2d, global_avg_pool, max_pool2d
from npreparam.exact.rounding import as_fractions, round_array, round_tf32
from npreparam.exact.sampling import bernoulli_log_prob, elbo, gaussian_kl, normal_log_prob, normal_rsample

__all__ = ["as_fractions", "avg_pool2d", "batch_norm", "batch_norm_grad", "bce_with_logits", "bernoulli_log_prob", "conv2d",
           "conv2d_input_grad", "conv2d_weight_grad", "conv_transpose2d", "cross_entropy", "elbo", "exp", "expm1", "fuse_conv_bn", "fuse_repvgg",
           "gaussian_kl", "global_avg_pool", "leaky_relu", "linear", "log", "log1p", "log_softmax", "matmul", "max_pool2d", "mean",
           "normal_log_prob", "normal_rsample", "relu", "round_array", "round_tf32", "sigmoid", "silu", "softplus", "sqrt", "sum", "tanh"]
