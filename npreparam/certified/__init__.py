"""Correctly rounded results at the speed of arrays: a fast candidate, a bound on its error, and exact repair where the bound does not decide."""

from npreparam.certified._record import Certified
from npreparam.certified.activation import leaky_relu, relu
from npreparam.certified.arithmetic import mean, sum
from npreparam.certified.batch_norm import batch_norm, batch_norm_grad
from npreparam.certified.conv2d import conv2d, conv2d_input_grad, conv2d_weight_grad, conv_transpose2d
from npreparam.certified.functions import exp, expm1, log, log1p, sigmoid, silu, softplus, tanh
from npreparam.certified.fuse import fuse_conv_bn, fuse_repvgg
from npreparam.certified.linear import linear, matmul
from npreparam.certified.loss import bce_with_logits, cross_entropy, log_softmax
from npreparam.certified.pool import avg_pool2d, global_avg_pool, max_pool2d
from npreparam.certified.sampling import gaussian_kl, normal_log_prob, normal_rsample

__all__ = ["Certified", "avg_pool2d", "batch_norm", "batch_norm_grad", "bce_with_logits", "conv2d", "conv2d_input_grad", "conv2d_weight_grad",
           "conv_transpose2d", "cross_entropy", "exp", "expm1", "fuse_conv_bn", "fuse_repvgg", "gaussian_kl", "global_avg_pool", "leaky_relu",
           "linear", "log", "log1p", "log_softmax", "matmul", "max_pool2d", "mean", "normal_log_prob", "normal_rsample", "relu", "sigmoid", "silu",
           "softplus", "sum", "tanh"]
