"""What every proof rests on, checked before it is relied on: rounding to nearest, no flushing to zero, and transformations without error."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam import kernels
from npreparam._errors import StateError
from npreparam._shapes import Window

Array = NDArray[Any]


def trust_the_machine() -> None:
    """Raise StateError where the proofs do not hold: a wrong compilation, or a thread told to round otherwise or to flush to zero."""
    if not kernels.certify.default_environment(1.0, 2.0**-1022):
        raise StateError("this thread does not round to nearest, or flushes subnormal numbers to zero, so nothing can be certified; a library "
                         "built with -ffast-math may have set that when it was loaded: call from another thread, or do not load it")
    trust_the_compiler()


@lru_cache(1)
def trust_the_compiler() -> None:
    """Raise StateError where the compiled error-free transformations are not: a compiler that reassociates would break every proof."""
    sums, big, odd = kernels.conv2d, 2.0**53, 1 + 2.0**-30
    x, w = np.array([big, 1.0, -big, odd]), np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, odd]])
    image, expected = x.reshape(1, 4, 1, 1), np.array([[1.0, 1 + 2.0**-29], [0.0, 2.0**-60]])  # big + 1 - big, and odd^2, as unevaluated pairs
    pairs = [sums.forward_sums(image, w.reshape(2, 4, 1, 1), None, Window.of(1), pair=True).reshape(2, 2),
             np.concatenate([sums.forward_sums(image, row.reshape(1, 4, 1, 1), None, Window.of(1), pair=True).reshape(2, 1) for row in w], axis=1),
             sums.weight_grad_sums(w.T.reshape(4, 2, 1, 1), x.reshape(4, 1, 1, 1), Window.of(1), pair=True).reshape(2, 2)]
    odd_sum = kernels.accumulate.decide(x, w.sum(axis=0), 4, 0.0, kernels.accumulate.TO_ODD, np.zeros(kernels.accumulate.LIMBS, np.int64))
    one = np.ones((1, 1, 1))
    tie, pair = np.empty((1, 1, 1)), np.array([1.0, 2.0**-53]).reshape(2, 1, 1, 1)
    doubt = kernels.certify.round_and_doubt(pair, one, one[0, 0], one[0, 0], 2.0**-99, 0.0, tie)
    if not (all(_same_pairs(found, expected) for found in pairs) and odd_sum == 2 + 2.0**-29 + 2.0**-51 and tie.item() == 1 and doubt.item()):
        raise StateError("the error-free transformations are compiled wrong (a fused multiply-add that rounds twice, or reassociated additions), "
                         "so nothing can be certified; remove Numba's cache and fast-math settings, or try NUMBA_CPU_NAME=generic")


def _same_pairs(found: Array, expected: Array) -> bool:
    high = found[0] + found[1]
    return bool((high == expected[0]).all() and ((found[0] - high) + found[1] == expected[1]).all())
