"""The truth: definitions in exact arithmetic, rounded once. Slow, short, obviously right; no Numba, no kernels."""

from npreparam.exact.activation import exp, expm1, leaky_relu, log, log1p, relu, sigmoid, silu, softplus, sqrt, tanh
from npreparam.exact.batch_norm import batch_norm
from npreparam.exact.conv2d import conv2d, conv2d_input_grad, conv2d_weight_grad
from npreparam.exact.linear import linear
from npreparam.exact.rounding import as_fractions, round_array

__all__ = ["as_fractions", "batch_norm", "conv2d", "conv2d_input_grad", "conv2d_weight_grad", "exp", "expm1", "leaky_relu", "linear", "log",
           "log1p", "relu", "round_array", "sigmoid", "silu", "softplus", "sqrt", "tanh"]
