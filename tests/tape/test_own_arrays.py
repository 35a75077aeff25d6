"""Gradients are arrays of the caller's own, though most are not copied."""

import numpy as np

from npreparam import ops
from npreparam.tape import Tensor, grad


def test_results_are_arrays_of_their_own():
    """Whatever a rule passes on: the seed, a forward value, one array for two arguments, a view."""
    seed, x, y = np.ones(3), Tensor(np.arange(3.0), "x"), Tensor(np.arange(3.0) + 5, "y")
    for output in (ops.add(x, y), ops.mul(ops.add(x, y), 1.0), ops.reshape(ops.add(x, ops.reshape(y, (3, 1))[:, 0]), (3,))):
        found = grad(output, [x, y], seed)
        kept = [g.copy() for g in (seed, x.value, y.value, output.value, found[1])]
        found[0][:] = 77
        for array, before in zip((seed, x.value, y.value, output.value, found[1]), kept, strict=True):
            assert (array == before).all()
    (same,) = grad(x, [x], seed)
    same[:] = 5
    assert (seed == 1).all()
    z = ops.exp(x)
    of_z, of_x = grad(ops.sum(z), [z, x])
    of_x[:] = 0
    assert (z.value == np.exp(x.value)).all()
    assert (of_z == 1).all()
