"""Correctly rounded results at the speed of arrays: a fast candidate, a bound on its error, and exact repair where the bound does not decide."""

from npreparam.certified.conv2d import conv2d, conv2d_input_grad, conv2d_weight_grad
from npreparam.certified.functions import Certified, exp, expm1, log, log1p, sigmoid, silu, softplus, tanh
from npreparam.certified.linear import linear, matmul

__all__ = ["Certified", "conv2d", "conv2d_input_grad", "conv2d_weight_grad", "exp", "expm1", "linear", "log", "log1p", "matmul", "sigmoid",
           "silu", "softplus", "tanh"]
