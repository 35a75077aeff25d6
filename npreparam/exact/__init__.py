"""The truth: definitions in exact arithmetic, rounded once. Slow, short, obviously right; no Numba, no kernels."""

from npreparam.exact.activation import exp, expm1, leaky_relu, log, log1p, relu, sigmoid, silu, softplus, sqrt, tanh
from npreparam.exact.batch_norm import batch_norm
from npreparam.exact.conv2d import conv2d, conv2d_input_grad, conv2d_weight_grad
from npreparam.exact.linear import linear
from npreparam.exact.loss import bce_with_logits, cross_entropy, log_softmax
from npreparam.exact.rounding import as_fractions, round_array
from npreparam.exact.sampling import bernoulli_log_prob, elbo, gaussian_kl, normal_log_prob, normal_rsample

__all__ = ["as_fractions", "batch_norm", "bce_with_logits", "bernoulli_log_prob", "conv2d", "conv2d_input_grad", "conv2d_weight_grad",
           "cross_entropy", "elbo", "exp", "expm1", "gaussian_kl", "leaky_relu", "linear", "log", "log1p", "log_softmax", "normal_log_prob",
           "normal_rsample", "relu", "round_array", "sigmoid", "silu", "softplus", "sqrt", "tanh"]
