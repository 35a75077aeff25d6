"""Expectations for tests of estimators: by quadrature where the noise can be chosen, by medians of blocks where it is drawn.

Nothing here comes from npreparam.
"""

from math import comb

import numpy as np

from tests.tolerances import UNIT

BLOCKS, WIDTH = 61, 3  # see `block_false_alarm`


def normal_nodes(count):
    """(nodes, weights) with sum of w*h(x) = E[h(X)], X ~ N(0, 1), exact for polynomials up to degree 2*count - 1."""
    x, w = np.polynomial.hermite_e.hermegauss(count)
    return x, w / w.sum()


def uniform_nodes(count):
    """The same for U(0, 1)."""
    x, w = np.polynomial.legendre.leggauss(count)
    return (x + 1) / 2, w / 2


def rayleigh_nodes(count):
    """The same for the density x*exp(-x^2/2) on (0, 13), beyond which its mass is exp(-84.5) < 2^-121; converges with `count`."""
    x, w = uniform_nodes(count)
    return 13 * x, 13 * w * 13 * x * np.exp(-((13 * x) ** 2) / 2)


def maxwell_nodes(count):
    """The same for the density x^2*exp(-x^2/2)/sqrt(2 pi), exact up to degree 2*count - 3."""
    x, w = normal_nodes(count)
    return x, w * x * x


def product_nodes(first, second):
    """Nodes (N, 2) and weights (N,) of two independent variables."""
    (x, v), (y, w) = first, second
    return np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2), np.outer(v, w).ravel()


def moments(values, weights):
    """Mean, variance and fourth central moment of one number for each node."""
    mean = (weights * values).sum()
    return mean, (weights * (values - mean) ** 2).sum(), (weights * (values - mean) ** 4).sum()


def quadrature_bound(coarse, fine, count, magnitude):
    """|error| <= 16*|fine - coarse| + (n + 256)*u*magnitude: the rule's, estimated by a coarser one, and roundings.

    n for the sum, 256 for a node, its weight and the value there; magnitude is the sum of weight*|value|.
    """
    return 16 * abs(fine - coarse) + (count + 256) * UNIT["float64"] * magnitude


def block_false_alarm(blocks=BLOCKS, width=WIDTH):
    """P(the median of the blocks' statistics is further than width*sd from its mean) <= P(Binomial(B, 1/width^2) >= (B + 1)/2).

    For each block that has probability 1/width^2 at most (Chebyshev), and the median is off only if half of the independent blocks are.
    """
    p = 1 / width**2
    return sum(comb(blocks, j) * p**j * (1 - p) ** (blocks - j) for j in range((blocks + 1) // 2, blocks + 1))


def mean_interval(variance, size):
    """How far the median of block means of `size` samples may be from their mean: WIDTH*sqrt(variance/size)."""
    return WIDTH * np.sqrt(variance / size)


def variance_interval(variance, fourth, size):
    """As `mean_interval` for sample variances (with ddof 1), whose own variance is (fourth - variance^2*(n - 3)/(n - 1))/n."""
    return WIDTH * np.sqrt((fourth - variance**2 * (size - 3) / (size - 1)) / size)


def deviation_range(variance, fourth, size, excess):
    """Least and greatest standard deviation of a block of g + d, where g has known moments and E[mean of d^2] <= excess.

    The variance of g is within sqrt(18) of its own standard deviations but for probability 1/18 (Chebyshev), the mean of d^2 below 18*excess but
    for 1/18 (Markov), together 1/9 = 1/WIDTH^2; and |sd(g + d) - sd(g)| <= sqrt(sum of d^2/(n - 1)) by the triangle inequality.
    """
    chance = 2 * WIDTH**2
    off = np.sqrt(chance) / WIDTH * variance_interval(variance, fourth, size)
    more = np.sqrt(chance * excess * size / (size - 1))
    return np.sqrt(variance - off) - more, np.sqrt(variance + off) + more
