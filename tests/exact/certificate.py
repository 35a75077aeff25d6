"""Proof that a float is the correctly rounded value: by mpmath at many more bits, between the halfway points to the floats around it."""

import mpmath
import numpy as np

BITS = {"float16": np.uint16, "bfloat16": np.uint16, "float32": np.uint32, "float64": np.uint64}
OVERFLOW = {"float16": 16, "bfloat16": 128, "float32": 128, "float64": 1024}  # 2^this takes the place of infinity among the halfway points
WITNESS_BITS = 3000


def certify(y, value):
    """half_way_down <= value <= half_way_up for a NumPy scalar y and an irrational mpf, and the sign is that of the value."""
    name = y.dtype.name
    kind = BITS[name]
    assert not np.isnan(y)
    assert bool(np.signbit(y)) == (value < 0)
    index = int(np.abs(y).view(kind))

    def number(bits):
        found = np.array(bits, kind).view(y.dtype)
        return mpmath.mpf(2) ** OVERFLOW[name] if np.isinf(found) else mpmath.mpf(float(found))

    with mpmath.workprec(WITNESS_BITS):
        size = abs(value)
        assert index == 0 or (number(index - 1) + number(index)) / 2 <= size
        assert np.isinf(y) or size <= (number(index) + number(index + 1)) / 2


def real(function, *arguments):
    """The witness: function of floats as mpf, to `WITNESS_BITS` bits."""
    with mpmath.workprec(WITNESS_BITS):
        return function(*(mpmath.mpf(float(v)) for v in arguments))


def sigmoid(x):
    return 1 / (1 + mpmath.exp(-x))


def softplus(x):
    return mpmath.log1p(mpmath.exp(x)) if x < 0 else x + mpmath.log1p(mpmath.exp(-x))


WITNESS = {"exp": mpmath.exp, "expm1": mpmath.expm1, "log": mpmath.log, "log1p": mpmath.log1p, "sqrt": mpmath.sqrt, "sigmoid": sigmoid,
           "tanh": mpmath.tanh, "softplus": softplus, "silu": lambda x: x * sigmoid(x)}
