"""Honest targets that share no code with npreparam: plain NumPy formulas in the arguments' own dtype, and simulated machines for convolutions."""

from types import SimpleNamespace

import numpy as np

from npreparam._shapes import Window
from npreparam.certified.bounds import FLOAT32
from npreparam.conformance import Declaration
from tests.certified import simulate
from tests.certified.transforms import winograd


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x / (1 + np.exp(-x))


def tanh(x):
    return np.tanh(x)


def log_softmax(x):
    shifted = x - x.max(-1, keepdims=True, initial=-np.inf)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def cross_entropy(logits, labels):
    return -log_softmax(logits)[np.arange(len(labels)), labels]


def bce_with_logits(logits, targets):
    return (1 - targets) * logits + softplus(-logits)


def normal_rsample(mu, sigma, eps):
    return mu + sigma * eps


def normal_log_prob(x, mu, sigma):
    two_pi = x.dtype.type(2 * np.pi)
    return -((x - mu) ** 2) / (2 * sigma**2) - np.log(two_pi * sigma**2) / 2


def gaussian_kl(mu, logvar):
    return (np.exp(logvar) + mu * mu - 1 - logvar) / 2


def linear(x, w, b=None):
    y = np.zeros((len(x), len(w)), x.dtype)
    for i in reversed(range(x.shape[1])):
        y = y + x[:, i, None] * w[:, i]
    return y if b is None else y + b


def _channels(v, x):
    return v.reshape(1, -1, *[1] * (x.ndim - 2))


def _moments(x):
    over = (0, *range(2, x.ndim))
    mean = x.mean(over, keepdims=True, dtype=x.dtype)
    return mean, ((x - mean) ** 2).mean(over, keepdims=True, dtype=x.dtype), over


def batch_norm(x, gamma, beta, running_mean, running_var, training=False, momentum=0.1, eps=1e-5):
    gamma, beta = _channels(gamma, x), _channels(beta, x)
    if not training:
        scale = gamma / np.sqrt(_channels(running_var, x) + x.dtype.type(eps))
        return x * scale + (beta - _channels(running_mean, x) * scale)
    (mean, var, _), n, m = _moments(x), x.dtype.type(x.size // x.shape[1]), x.dtype.type(momentum)
    y = (x - mean) / np.sqrt(var + x.dtype.type(eps)) * gamma + beta
    unbiased = var.ravel() * (n / (n - 1))
    return y, running_mean + m * (mean.ravel() - running_mean), (1 - m) * running_var + m * unbiased


def batch_norm_grad(gy, x, gamma, running_mean, running_var, training=False, eps=1e-5):
    mean, var, over = _moments(x) if training else (_channels(running_mean, x), _channels(running_var, x), (0, *range(2, x.ndim)))
    root = 1 / np.sqrt(var + x.dtype.type(eps))
    normal = (x - mean) * root
    ggamma, gbeta = (gy * normal).sum(over, dtype=x.dtype), gy.sum(over, dtype=x.dtype)
    if not training:
        return gy * _channels(gamma, x) * root, ggamma, gbeta
    n = x.dtype.type(x.size // x.shape[1])
    return _channels(gamma, x) * root * (gy - _channels(gbeta, x) / n - normal * _channels(ggamma, x) / n), ggamma, gbeta


def fuse_conv_bn(w, b, gamma, beta, mean, var, eps=1e-5, groups=1, transposed=False):
    scale = gamma / np.sqrt(var + w.dtype.type(eps))
    bias = beta + ((0 if b is None else b) - mean) * scale
    if not transposed:
        return w * scale[:, None, None, None], bias
    split = w.reshape(groups, -1, *w.shape[1:]) * scale.reshape(groups, 1, -1, 1, 1)
    return split.reshape(w.shape), bias


def fuse_repvgg(w3, bn3, w1, bn1, bn_identity=None, groups=1):
    one = np.zeros((w3.shape[0], w3.shape[1], 1, 1), w3.dtype)
    one[np.arange(len(w3)), np.arange(len(w3)) % w3.shape[1]] = 1
    w, b = fuse_conv_bn(w3, None, *bn3)
    for kernel, bn in ((w1, bn1), (one, bn_identity)):
        if bn is not None:
            more, shift = fuse_conv_bn(kernel, None, *bn)
            w[:, :, 1:2, 1:2] += more
            b = b + shift
    return w, b


PLAIN = SimpleNamespace(**{name: value for name, value in globals().items() if callable(value) and value.__module__ == __name__
                           and not name.startswith("_")}, declaration=Declaration("plain NumPy"))


def machine(style, profile):
    """Convolutions by a simulated machine, in one style of order."""
    def conv2d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
        window = Window.of(w.shape[2:], stride, padding, dilation, groups, size=x.shape[2:])
        bias = None if b is None else b.astype(np.float64)
        if not len(x):
            return np.zeros((0, len(w), *window.output_size(x.shape[2:])), x.dtype)
        return simulate.conv2d(x.astype(np.float64), w.astype(np.float64), profile, style, np.random.default_rng(0), bias,
                               (window.stride, window.padding, window.dilation, groups))

    return SimpleNamespace(conv2d=conv2d, declaration=Declaration(style, dtypes=(profile.output,), profiles={profile.output: profile}))


def by_winograd(m, declared):
    """F(m, 3) in float32 where it applies, direct sums elsewhere."""
    direct = machine("sequential", FLOAT32).conv2d

    def conv2d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
        window = Window.of(w.shape[2:], stride, padding, dilation, groups, size=x.shape[2:])
        if (window.kernel, window.stride, window.dilation, groups) != ((3, 3), (1, 1), (1, 1), 1) or not x.size:
            return direct(x, w, b, stride, padding, dilation, groups)
        y = winograd(np.pad(x, ((0, 0), (0, 0), *window.padding)), w, m)
        return y if b is None else y + b[:, None, None]

    return SimpleNamespace(conv2d=conv2d, declaration=Declaration(f"F({m},3)", dtypes=("float32",), profiles={"float32": declared}))
