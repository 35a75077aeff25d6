"""One row of parameters for each sample: differentiating a sum over samples then gives one gradient for each, without a loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from npreparam import ops
from npreparam._errors import ArgumentError, DTypeError, ShapeError
from npreparam._shapes import as_int
from npreparam.prob._distribution import Array, Distribution, Random
from npreparam.prob._parameters import Parameter, as_value
from npreparam.tape import Tensor, grad
from npreparam.tape.tensor import value_of

Objective = Callable[[Tensor], Any]
Family = Callable[..., Distribution]
Gradients = dict[str, Array]


class Rows:
    """Parameters as leaves (S, *shape), the distribution made of them with batch shape (S*draws, ...), and noise for it.

    `base` is the distribution as it was given, `rows` the one of the leaves. Each sample may consist of several `draws` with one row of
    parameters. The noise is that of `base`, or of another distribution, `noise_of`.
    """

    def __init__(self, family: Family, parameters: Mapping[str, Any], samples: int | None, rng: Random | None, eps: Any, *,
                 draws: int | None = None, noise_of: Distribution | None = None) -> None:
        arrays = as_arrays(parameters)
        self.base = _base(family, arrays)
        axes = {name: rule.axes for name, rule in getattr(family, "parameter_rules", {}).items()}
        self.samples, self.eps = _noise(noise_of or self.base, samples, rng, eps, () if draws is None else (draws,))
        self.draws = 1 if draws is None else draws
        self.leaves = {name: Tensor(np.broadcast_to(value, (self.samples, *value.shape)), name) for name, value in arrays.items()}
        rank = max(value.ndim - axes.get(name, 0) for name, value in arrays.items())
        self._repeated = {name: self._aligned(leaf, rank + axes.get(name, 0)) for name, leaf in self.leaves.items()}
        self.rows = family(**self._repeated)
        if self.rows.batch_shape != (self.samples * self.draws, *self.base.batch_shape):
            raise ShapeError(f"`family` makes a batch shape {self.rows.batch_shape} of {self.samples * self.draws} rows of `parameters`, but "
                             f"{self.base.batch_shape} of one; give all parameters as many batch axes, and keep leading axes as they are")

    def _aligned(self, leaf: Tensor, rank: int) -> Parameter:
        """A leaf with axes of length 1 put in behind the first, so that the parameters' batch axes meet, and repeated for the draws."""
        shape = (*[1] * (rank - leaf.ndim + 1), *leaf.shape[1:])
        if self.draws == 1:
            return ops.reshape(leaf, (self.samples, *shape))
        repeated = ops.broadcast_to(ops.reshape(leaf, (self.samples, 1, *shape)), (self.samples, self.draws, *shape))
        return ops.reshape(repeated, (self.samples * self.draws, *shape))

    def stopped(self, family: Family) -> Distribution:
        """The distribution of the rows with parameters that nothing flows back to."""
        return family(**{name: value_of(value) for name, value in self._repeated.items()})

    def gradients(self, output: Any) -> Gradients:
        """d(sum of the output)/d(leaf): row s is sample s's own. Raises UnusedInputError for an output that some parameter does not reach."""
        return grad(ops.sum(output) if isinstance(output, Tensor) else output, self.leaves)


def as_arrays(parameters: Mapping[str, Any]) -> dict[str, Array]:
    """The parameters as arrays; numbers take the dtype of the arrays beside them."""
    if not isinstance(parameters, Mapping) or not parameters:
        raise ArgumentError(f"`parameters` (={parameters!r}) must be a dict of names and values, such as {{'loc': 0.0, 'scale': 1.0}}")
    for name, value in parameters.items():
        if isinstance(value, Tensor):
            raise ArgumentError(f"`{name}` is a Tensor, but gradients of single samples are taken here; pass its .value")
    dtype = next((value.dtype for value in parameters.values() if hasattr(value, "dtype")), np.dtype(np.float64))
    return {name: as_value(value, name, dtype) for name, value in parameters.items()}


def _base(family: Family, parameters: Mapping[str, Array]) -> Distribution:
    made = family(**parameters)
    if not isinstance(made, Distribution):
        raise ArgumentError(f"`family` makes a {type(made).__name__}, but must make a Distribution")
    return made


def _noise(base: Distribution, samples: int | None, rng: Random | None, eps: Any, draws: tuple[int, ...]) -> tuple[int, Array]:
    """How many samples, and their noise (S, *draws, *noise of one) in one axis of S*draws."""
    one = (*draws, *base.noise_shape())
    if (rng is None) == (eps is None):
        told = "neither is given" if rng is None else "both are given"
        raise ArgumentError(f"noise comes from `rng` or from `eps`, but {told}; pass a numpy.random.Generator, a seed, or the noise itself")
    if eps is None:
        count = sample_count(samples)
        eps = base.noise((count, *draws), rng)
    else:
        eps = as_value(eps, "eps", base.dtype)
        count = eps.shape[0] if eps.ndim else 0
        if eps.shape[1:] != one or count < 1 or samples not in (None, count):
            wanted = "samples" if samples is None else samples
            raise ShapeError(f"`eps` has shape {eps.shape}, but must have shape ({wanted}{''.join(f', {n}' for n in one)}): "
                             "noise for each sample")
    return count, np.reshape(eps, (-1, *base.noise_shape()))


def sample_count(samples: Any) -> int:
    """The number of samples that noise is drawn for."""
    if samples is None:
        raise ArgumentError("`samples` is None, but is required with `rng`; pass how many samples to draw")
    return as_int(samples, "samples", 1)


def objective(f: Objective, z: Tensor, name: str = "f") -> Any:
    """f(z), checked to be one number for each sample."""
    values = f(z)
    if not isinstance(values, Tensor | np.ndarray):
        raise ArgumentError(f"`{name}` returned a {type(values).__name__}, but must return a Tensor of one number for each sample")
    if values.shape != z.shape[:1]:
        raise ShapeError(f"`{name}` returned shape {values.shape}, but must return shape {z.shape[:1]}: one number for each sample; sum over the "
                         "other axes")
    if values.dtype != z.dtype:
        raise DTypeError(f"`{name}` returned dtype {values.dtype}, but must keep that of the samples, {z.dtype}")
    return values


def joint_log_prob(distribution: Distribution, z: Any) -> Parameter:
    """log q of each sample, (S,): summed over what remains of the batch axes."""
    log_q = distribution.log_prob(z)
    return ops.sum(log_q, tuple(range(1, log_q.ndim))) if log_q.ndim > 1 else log_q


def as_tensor(z: Any) -> Tensor:
    """Samples as `f` expects them."""
    return z if isinstance(z, Tensor) else Tensor(z, "z")
