"""The truth: definitions in rational arithmetic, rounded once. Slow, short, obviously right; no Numba, no kernels."""

from npreparam.exact.arithmetic import mean, sum
from npreparam.exact.batch_norm import batch_norm, batch_norm_grad
from npreparam.exact.conv2d import conv2d, conv2d_input_grad, conv2d_weight_grad, conv_transpose2d
from npreparam.exact.fuse import fuse_conv_bn, fuse_repvgg
from npreparam.exact.linear import linear, matmul
from npreparam.exact.pool import avg_pool2d, global_avg_pool, max_pool2d
from npreparam.exact.rounding import as_fractions, round_array, round_tf32

__all__ = ["as_fractions", "avg_pool2d", "batch_norm", "batch_norm_grad", "conv2d", "conv2d_input_grad", "conv2d_weight_grad", "conv_transpose2d",
           "fuse_conv_bn", "fuse_repvgg", "global_avg_pool", "linear", "matmul", "max_pool2d", "mean", "round_array", "round_tf32", "sum"]
