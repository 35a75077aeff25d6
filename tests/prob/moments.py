"""Polynomials of independent random variables with exact moments, and tests of means that hold for any law with a known variance."""

import itertools
import math
from fractions import Fraction

import numpy as np

BLOCKS = 40


def normal(n):
    """E[eps^n] of N(0, 1)."""
    return Fraction(0 if n % 2 else math.prod(range(1, n, 2)))


def uniform(n):
    """E[U^n] of U(0, 1)."""
    return Fraction(1, n + 1)


def maxwell(n):
    """E[M^n] of the double-sided Maxwell distribution, whose density is x^2 times that of N(0, 1)."""
    return normal(n + 2)


def rayleigh(n):
    """E[W^n] = 2^(n/2) Gamma(1 + n/2), a float for odd n."""
    return Fraction(2 ** (n // 2) * math.factorial(n // 2)) if n % 2 == 0 else 2 ** (n / 2) * math.gamma(1 + n / 2)


class Polynomial:
    """Coefficients by tuples of exponents, one for each variable; `laws` are the variables' moment functions."""

    def __init__(self, terms, laws):
        self.terms, self.laws = terms, laws

    @classmethod
    def variables(cls, *laws):
        return [cls({tuple(int(i == j) for j in range(len(laws))): 1}, laws) for i in range(len(laws))]

    def __add__(self, other):
        other = other if isinstance(other, Polynomial) else Polynomial({(0,) * len(self.laws): other}, self.laws)
        terms = dict(self.terms)
        for powers, c in other.terms.items():
            terms[powers] = terms.get(powers, 0) + c
        return Polynomial(terms, self.laws)

    def __mul__(self, other):
        if not isinstance(other, Polynomial):
            return Polynomial({powers: c * other for powers, c in self.terms.items()}, self.laws)
        terms = {}
        for (p, c), (q, d) in itertools.product(self.terms.items(), other.terms.items()):
            powers = tuple(i + j for i, j in zip(p, q, strict=True))
            terms[powers] = terms.get(powers, 0) + c * d
        return Polynomial(terms, self.laws)

    __rmul__, __radd__ = __mul__, __add__

    def __sub__(self, other):
        return self + other * -1

    def mean(self):
        return sum((c * math.prod(law(n) for law, n in zip(self.laws, powers, strict=True)) for powers, c in self.terms.items()), Fraction(0))

    def central(self, n):
        """E[(X - E[X])^n]."""
        centred, power = self - self.mean(), Polynomial({(0,) * len(self.laws): Fraction(1)}, self.laws)
        for _ in range(n):
            power = power * centred
        return power.mean()


def assert_mean(samples, mean, variance):
    """The mean of independent samples of a known variance; false alarms of at most 2e-10, for any law (Chebyshev, then a median of blocks).

    The mean of n samples is more than 4*sqrt(variance/n) off with probability 1/16 at most; the median of 40 such means is off by more only if 20 of
    them are, of probability at most binom(40, 20)/16^20 = 1.2e-13, and there are fewer than 1000 calls.
    """
    blocks = np.asarray(samples, np.float64)
    blocks = blocks[: len(blocks) // BLOCKS * BLOCKS].reshape(BLOCKS, -1)
    bound = 4 * math.sqrt(float(variance) / blocks.shape[1])
    error = abs(float(np.median(blocks.mean(1))) - float(mean))
    assert error <= bound, f"the mean is off by {error:.3g}; permitted error = {bound:.3g}"


def assert_variance(samples, mean, variance, fourth):
    """The variance of independent samples of a known mean and fourth central moment: Var[(x - mean)^2] = m4 - variance^2."""
    assert_mean((np.asarray(samples) - float(mean)) ** 2, variance, fourth - variance**2)
