"""Honest implementations of declared arithmetic, operation by operation, over arrays of independent cases.

Sums run along axis 0. NumPy rounds every float32 and float64 operation once; its float16 and ml_dtypes' bfloat16 go through float32, which
has the 2p + 2 bits that make the second rounding harmless (Figueroa, 1995).
"""

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from tests import naive

DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
quiet = np.errstate(all="ignore")  # overflow and underflow are what is simulated
STYLES = ("sequential", "shuffled", "pairwise", "blocked", "random_tree", "fma")


def to_odd(total, error):
    """A float64 sum and its error as the float64 rounded to odd, from which one more rounding is as good as the first (Boldo and Melquiond, 2008)."""
    bits = total.view(np.int64)
    inexact_even = (error != 0) & (bits & 1 == 0)
    away = (error > 0) == (total > 0)
    return np.where(inexact_even, bits + np.where(away, 1, -1), bits).view(np.float64)


@quiet
def fma32(x, w, s):
    """x*w + s of float32 arrays, rounded once: the product is exact in float64, the sum is rounded to odd there."""
    p, s = x.astype(np.float64) * w, s.astype(np.float64)
    total = p + s
    back = total - p
    error = (p - (total - back)) + (s - back)  # two_sum (Knuth)
    return np.where(np.isfinite(total), to_odd(total, error), total).astype(np.float32)


@quiet
def to_tf32(x):
    """Float32 rounded to 11 bits, ties to even."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & np.uint32(0xFFFFE000)).view(np.float32)


def truncated(x, exponent, bits=24):
    """Float64 numbers cut toward zero to a multiple of 2^(exponent - bits)."""
    return np.ldexp(np.trunc(np.ldexp(x, bits - exponent)), exponent - bits)


@quiet
def aligned_sum(parts):
    """One step of a tensor core: all operands cut to the spacing of the largest, added, and the sum cut to 24 bits."""
    largest = np.frexp(np.abs(parts).max(0))[1]
    total = truncated(parts, largest).sum(0)  # exact: at most 24 + log2(operands) bits
    return truncated(total, np.maximum(np.frexp(total)[1], -125))


def rounded(x, name):
    """Float64 rounded to a format of operands, as float64; an array without a narrower format passes."""
    if name == "tf32":
        return to_tf32(x.astype(np.float32)).astype(np.float64)
    return x.astype(DTYPES[name]).astype(np.float64)


@dataclass
class Machine:
    """Adds and multiplies in a dtype, flushing subnormal results to zero if it is told to."""

    dtype: type
    flush: bool = False

    def out(self, value):
        value = np.asarray(value, self.dtype)
        tiny = float(ml_dtypes.finfo(self.dtype).smallest_normal)
        return np.where(np.abs(value.astype(np.float64)) < tiny, self.dtype(0), value) if self.flush else value

    @quiet
    def add(self, a, b):
        return self.out(a + b)

    @quiet
    def mul(self, a, b):
        return self.out(a * b)

    def total(self, terms, style, rng, block=4):
        """The sum along axis 0 of terms, in a style of order."""
        terms = list(terms)
        if style == "shuffled":
            rng.shuffle(terms)
        if style == "random_tree":
            while len(terms) > 1:
                i, j = rng.choice(len(terms), 2, replace=False)
                a, b = terms[i], terms[j]
                terms = [t for k, t in enumerate(terms) if k not in (i, j)] + [self.add(a, b)]
        if style == "pairwise":
            while len(terms) > 1:
                rest = terms[len(terms) // 2 * 2:]
                terms = [self.add(a, b) for a, b in zip(terms[::2], terms[1::2], strict=False)] + rest
        if style == "blocked":
            terms = [self.total(terms[i:i + block], "sequential", rng) for i in range(0, len(terms), block)]
        result = terms[0]
        for term in terms[1:]:
            result = self.add(result, term)
        return result


@quiet
def dot(x, w, profile, style, rng, bias=None):
    """Sums over axis 0 of x*w (float64 arrays) by a machine of the profile; the result has the output's dtype."""
    x, w = rounded(x, profile.input_rounding), rounded(w, profile.input_rounding)
    machine = Machine(DTYPES[profile.accumulator], profile.flush_to_zero)
    if profile.flush_to_zero:
        x, w = (np.where(np.abs(v) < ml_dtypes.finfo(DTYPES[profile.accumulator]).smallest_normal, 0.0, v) for v in (x, w))
    if profile.order == "tensor_core":
        total = np.zeros(x.shape[1:])
        block = int(rng.choice([1, 4, 8, 16]))
        for k in range(0, len(x), block):
            total = aligned_sum(np.concatenate([total[None], x[k:k + block] * w[k:k + block]]))
        return (total if bias is None else total + bias).astype(np.float32).astype(DTYPES[profile.output])
    x, w = x.astype(machine.dtype), w.astype(machine.dtype)
    if style == "late_bias":
        total = dot(x.astype(np.float64), w.astype(np.float64), profile, "sequential", rng)
        return Machine(DTYPES[profile.output], profile.flush_to_zero).add(total, np.asarray(bias, total.dtype))
    extra = [] if bias is None else [np.broadcast_to(np.asarray(bias, machine.dtype), x.shape[1:])]
    if style == "fma":
        total = extra[0] if extra else np.zeros(x.shape[1:], np.float32)
        for a, b in zip(x, w, strict=True):
            total = machine.out(fma32(a, b, total))
    else:
        total = machine.total([machine.mul(a, b) for a, b in zip(x, w, strict=True)] + extra, style, rng)
    return total.astype(DTYPES[profile.output])


def factors(p, q, triples, shape):
    """The two factors of every term of every element of a bilinear map: (longest, *shape), filled up with zeros.

    `triples` yields, for each term, its index in the result, in p and in q: `naive.conv_terms` in one of its three roles.
    """
    pairs = {at: [] for at in np.ndindex(shape)}
    for at, at_p, at_q in triples:
        pairs[at].append((p[at_p], q[at_q]))
    longest = max(1, *map(len, pairs.values()))  # one zero at least, where every window lies in the padding
    return tuple(np.array([[pair[side] for pair in found] + [0.0] * (longest - len(found)) for found in pairs.values()]).T.reshape(longest, *shape)
                 for side in (0, 1))


def conv2d(x, w, profile, style, rng, bias=None, geometry=((1, 1), ((0, 0), (0, 0)), (1, 1), 1)):
    """A direct convolution of float64 arrays by a machine of the profile."""
    left, right = factors(x, w, naive.conv_terms(x.shape, w.shape, *geometry), naive.conv_output_shape(x.shape, w.shape, *geometry[:3]))
    return dot(left, right, profile, style, rng, None if bias is None else bias[:, None, None])
