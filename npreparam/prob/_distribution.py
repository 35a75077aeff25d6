"""What every distribution offers, and what its class has to say for it."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ArgumentError, ShapeError
from npreparam._shapes import as_int
from npreparam.ops._validate import as_array, as_lengths
from npreparam.prob._parameters import (
    REAL,
    Parameter,
    Rule,
    as_parameters,
    as_value,
    batch_shape_of,
    check_rule,
    expanded,
    open_interval,
    uniform_noise,
)
from npreparam.tape.tensor import Tensor, value_of

Array = NDArray[Any]
Shape = tuple[int, ...]
Random = np.random.Generator | int


def as_generator(rng: Any) -> np.random.Generator:
    """A generator as it is, or the one that a seed stands for; there is no hidden global state."""
    if isinstance(rng, np.random.Generator):
        return rng
    return np.random.default_rng(as_int(rng, "rng", 0))


class Distribution:
    """A batch of distributions: `batch_shape` numbers them, `event_shape` is the shape of one draw.

    Parameters are arrays, Tensors of the tape, or numbers; results are Tensors where a parameter (or the argument) is one. All have one dtype.

    **Noise.** ``z = rsample(eps=eps)`` is a deterministic function of the parameters and of `eps`, whose law the class states as `noise_law`;
    ``noise(shape, rng)`` draws it. So the same noise can be given to another framework. `rsample` is differentiable; `sample` returns an array that
    no gradient flows through.

    A subclass sets `parameter_rules` (name -> rule, in order), `support`, `noise_law`, and writes `_transform(eps)` and `_log_prob(x)`.

    >>> from npreparam.prob import Laplace
    >>> q = Laplace(np.zeros(3), 2.0)
    >>> isinstance(q, Distribution), q.batch_shape, q.event_shape, q.noise_law
    (True, (3,), (), 'uniform on (0, 1)')
    """

    parameter_rules: ClassVar[dict[str, Rule]] = {}
    support: ClassVar[Rule] = REAL
    noise_law: ClassVar[str] = "standard normal"
    reparameterized: ClassVar[bool] = True

    batch_shape: Shape
    event_shape: Shape = ()
    dtype: np.dtype[Any]

    def _set(self, **parameters: Any) -> None:
        """Validate the parameters, keep them under their names, and broadcast their batch axes."""
        rules = {name: self.parameter_rules[name] for name in parameters}
        made = as_parameters(**{name: (value, rules[name]) for name, value in parameters.items()})
        for name, value in made.items():
            setattr(self, name, value)
        self.parameters: dict[str, Parameter] = made
        self.batch_shape = batch_shape_of({name: (value, rules[name].axes) for name, value in made.items()})
        self.dtype = next(iter(made.values())).dtype

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {value.shape}" for name, value in self.parameters.items())
        return f"{type(self).__name__}({shapes}; batch_shape {self.batch_shape}, event_shape {self.event_shape})"

    # sampling

    def noise_shape(self, shape: Any = ()) -> Shape:
        """Shape of the noise for samples of `shape`: one number for each element of the sample, unless the class says otherwise."""
        return self.sample_shape(shape)

    def sample_shape(self, shape: Any = ()) -> Shape:
        """Shape of samples: shape + batch_shape + event_shape."""
        return (*as_lengths(shape), *self.batch_shape, *self.event_shape)

    def noise(self, shape: Any = (), rng: Random | None = None) -> Array:
        """Noise for `rsample(eps=...)`, drawn by `rng`: a numpy.random.Generator or a seed."""
        if rng is None:
            raise ArgumentError("`rng` is None, but is required; pass a numpy.random.Generator or a seed")
        return self._noise(self.noise_shape(shape), as_generator(rng))

    def _noise(self, shape: Shape, rng: np.random.Generator) -> Array:
        if self.noise_law == "uniform on (0, 1)":
            return uniform_noise(shape, rng, self.dtype)
        return rng.standard_normal(shape).astype(self.dtype)

    def rsample(self, shape: Any = (), *, rng: Random | None = None, eps: Any = None) -> Parameter:
        """A re-parameterized sample of shape + batch_shape + event_shape, from noise drawn by `rng` or given as `eps`.

        With `eps`, the sample's shape is read off the noise; `shape`, if given too, must agree. Uniform noise of 0 or 1 is moved to the nearest
        number inside.

        Raises ArgumentError where neither or both of `rng` and `eps` are given, and where the distribution is discrete.
        """
        if not self.reparameterized:
            raise ArgumentError(f"{type(self).__name__} has no re-parameterized sample, for it is discrete; draw with `sample` and use the score "
                                "function, or use a relaxed distribution")
        return self._transform(self._checked_noise(shape, rng, eps))

    def sample(self, shape: Any = (), *, rng: Random | None = None, eps: Any = None) -> Array:
        """A sample as a plain array: nothing flows back to the parameters (`rsample` is the differentiable one)."""
        return np.array(value_of(self._transform(self._checked_noise(shape, rng, eps))))

    def _checked_noise(self, shape: Any, rng: Random | None, eps: Any) -> Array | Tensor:
        if (rng is None) == (eps is None):
            told = "neither is given" if rng is None else "both are given"
            raise ArgumentError(f"noise comes from `rng` or from `eps`, but {told}; pass a numpy.random.Generator, a seed, or the noise itself")
        if eps is None:
            return self.noise(shape, rng)
        eps = as_value(eps, "eps", self.dtype)
        least = self.noise_shape()
        tail = eps.shape[len(eps.shape) - len(least):] if len(eps.shape) >= len(least) else None
        if tail != least or (shape != () and eps.shape != self.noise_shape(shape)):
            wanted = self.noise_shape(shape) if shape != () else f"(..., {', '.join(map(str, least))})"
            raise ShapeError(f"`eps` has shape {eps.shape}, but must have shape {wanted}: the sample's shape and then the noise of one draw")
        return self._admitted(eps)

    def _admitted(self, eps: Any) -> Any:
        """Explicit noise within its law's range."""
        if self.noise_law != "uniform on (0, 1)":
            check_rule(value_of(eps), "eps", REAL)
            return eps
        check_rule(value_of(eps), "eps", Rule("between 0 and 1", lambda u: (u >= 0) & (u <= 1)))
        return open_interval(value_of(eps))

    def _transform(self, eps: Any) -> Parameter:
        raise NotImplementedError

    # densities

    def log_prob(self, x: Any) -> Parameter:
        """Logarithm of the density (or of the probability) at x, of x's sample shape broadcast with batch_shape; event axes are summed.

        Raises ArgumentError for x outside the support, ShapeError, DTypeError.
        """
        return self._log_prob(self._checked_value(x))

    def _log_prob(self, x: Any) -> Parameter:
        raise NotImplementedError

    def _checked_value(self, x: Any) -> Any:
        x = as_value(x, "x", self.dtype)
        rank = len(self.event_shape)
        if x.shape[len(x.shape) - rank:] != self.event_shape or len(x.shape) < rank:
            raise ShapeError(f"`x` has shape {x.shape}, but must end with the event shape {self.event_shape} of {type(self).__name__}")
        try:
            np.broadcast_shapes(x.shape[: len(x.shape) - rank], self.batch_shape)
        except ValueError:
            raise ShapeError(f"`x` of shape {x.shape} does not broadcast with the batch shape {self.batch_shape} of {type(self).__name__}") from None
        check_rule(value_of(x), "x", self.support, f": the support of {type(self).__name__}")
        return x

    def cdf(self, x: Any) -> Parameter:
        """P(X <= x), elementwise."""
        return self._cdf(self._checked_value(x))

    def icdf(self, u: Any) -> Parameter:
        """The quantile: the x with cdf(x) = u, for u in [0, 1]; 0 and 1 are moved to the nearest numbers inside."""
        u = as_value(u, "u", self.dtype)
        check_rule(value_of(u), "u", Rule("between 0 and 1", lambda u: (u >= 0) & (u <= 1)))
        return self._icdf(u if isinstance(u, Tensor) else open_interval(as_array(u, "u")))

    def _cdf(self, x: Any) -> Parameter:
        raise self._no("cdf")

    def _icdf(self, u: Any) -> Parameter:
        raise self._no("icdf")

    def entropy(self) -> Parameter:
        """-E[log p(X)] in nats, of batch_shape."""
        raise self._no("closed-form entropy")

    @property
    def mean(self) -> Parameter:
        """E[X], of batch_shape + event_shape; NaN where it does not exist."""
        raise self._no("closed-form mean")

    @property
    def variance(self) -> Parameter:
        """Var[X], of batch_shape + event_shape; NaN where it does not exist."""
        raise self._no("closed-form variance")

    def _no(self, what: str) -> ArgumentError:
        return ArgumentError(f"{type(self).__name__} has no {what}; average over samples instead")

    def _expand(self, value: Any) -> Parameter:
        """A number or parameter of batch shape + event shape."""
        return expanded(as_value(value, "value", self.dtype), (*self.batch_shape, *self.event_shape))


class OfBase(Distribution):
    """A distribution made of another one, `base`, whose noise it takes."""

    base: Distribution

    def noise_shape(self, shape: Any = ()) -> Shape:
        """The base's."""
        return self.base.noise_shape(shape)

    def _noise(self, shape: Shape, rng: np.random.Generator) -> Array:
        return self.base._noise(shape, rng)

    def _admitted(self, eps: Any) -> Any:
        return self.base._admitted(eps)
