"""The local re-parameterization: a linear layer with Gaussian weights, sampled where its outputs are and not where its weights are.

w_oi ~ N(loc_oi, scale_oi^2), independent        y_no = sum over i of x_ni*w_oi ~ N(sum of x_ni*loc_oi, sum of x_ni^2*scale_oi^2)

Each y_no has the same law either way. With one draw of the weights for the batch, the outputs of its rows are correlated, so that the gradient's
variance does not fall as the batch grows; with noise for each y_no, they are independent, and N*O numbers are drawn instead of O*I.

Source: Kingma, Salimans and Welling, Variational dropout and the local reparameterization trick, arXiv 1506.02557, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from npreparam import ops
from npreparam._errors import ShapeError
from npreparam.ops import linalg
from npreparam.ops._validate import as_array, check_rank
from npreparam.prob._distribution import Array, Random
from npreparam.prob._parameters import Parameter
from npreparam.prob.estimators._rows import Gradients, Objective, Rows, objective
from npreparam.prob.location_scale import Normal
from npreparam.tape.tensor import Tensor, value_of


def local_linear(x: Any, loc: Any, scale: Any, *, rng: Random | None = None, eps: Any = None) -> Parameter:
    """A linear layer with Gaussian weights, sampled in activation space.

    y = x loc^T + sqrt(x^2 (scale^2)^T)*eps, eps ~ N(0, 1)

    x is (N, I), loc and scale > 0 are (O, I), eps and y are (N, O); arrays or Tensors of one dtype. Differentiable in x, loc and scale.

    Rounding: three chains of I terms (see `ops.linear`), a root, a product and a sum.

    Raises ArgumentError for a scale that is not positive, ShapeError, DTypeError.

    Source: Kingma, Salimans and Welling, arXiv 1506.02557, equation 6.

    >>> local_linear(np.array([[3.0, 4.0]]), np.ones((1, 2)), np.ones((1, 2)), eps=np.array([[2.0]]))    # 7 + 5*2
    array([[17.]])
    """
    weights = Normal(loc, scale)
    mean = ops.linear(x, weights.loc)  # type: ignore[attr-defined]
    variance = ops.linear(ops.square(x), ops.square(weights.scale))  # type: ignore[attr-defined]
    noise = Normal(np.zeros(mean.shape, mean.dtype), 1.0)
    return _placed(mean, variance, noise.sample(rng=rng, eps=eps))


def local_reparameterization(f: Objective, x: Array, parameters: Mapping[str, Any], samples: int | None = None, *, rng: Random | None = None,
                             eps: Any = None) -> Gradients:
    """Gradients of E[f(y)] with respect to the weights' `loc` and `scale`, with noise for each output of the layer.

    g_s = d f(y_s)/dtheta, y_s = x loc^T + sqrt(x^2 (scale^2)^T)*eps_s

    x is an array (N, I), `parameters` holds `loc` and `scale` of shape (O, I), `eps` is (S, N, O); f maps y (S, N, O) to (S,). The gradients
    are (S, O, I). Unbiased where f is a sum over the rows of the batch, as a loss is; what depends on several rows jointly sees them independent.

    Raises ArgumentError, ShapeError, DTypeError.

    >>> x, weights = np.array([[3.0, 4.0]]), {"loc": np.ones((1, 2)), "scale": np.ones((1, 2))}
    >>> local_reparameterization(lambda y: ops.sum(y, axis=(1, 2)), x, weights, eps=np.ones((1, 1, 1)))["scale"]
    array([[[1.8, 3.2]]])
    """
    x = _checked(x, parameters)
    outputs = Normal(np.zeros((len(x), np.shape(parameters["loc"])[0]), x.dtype), 1.0)
    rows = Rows(Normal, parameters, samples, rng, eps, noise_of=outputs)
    mean, variance = _product(x, rows.rows.loc), _product(np.square(x), ops.square(rows.rows.scale))  # type: ignore[attr-defined]
    return rows.gradients(objective(f, _placed(mean, variance, rows.eps)))


def weight_reparameterization(f: Objective, x: Array, parameters: Mapping[str, Any], samples: int | None = None, *, rng: Random | None = None,
                              eps: Any = None) -> Gradients:
    """Gradients of E[f(y)] with respect to the weights' `loc` and `scale`, with one draw of the weights for all rows of the batch.

    g_s = d f(y_s)/dtheta, y_s = x w_s^T, w_s = loc + scale*eps_s

    As `local_reparameterization`, whose variance it is there to be compared with; `eps` is (S, O, I).

    Raises ArgumentError, ShapeError, DTypeError.

    >>> x, weights = np.array([[3.0, 4.0]]), {"loc": np.ones((1, 2)), "scale": np.ones((1, 2))}
    >>> weight_reparameterization(lambda y: ops.sum(y, axis=(1, 2)), x, weights, eps=np.ones((1, 1, 2)))["scale"]
    array([[[3., 4.]]])
    """
    x = _checked(x, parameters)
    rows = Rows(Normal, parameters, samples, rng, eps)
    return rows.gradients(objective(f, _product(x, rows.rows.rsample(eps=rows.eps))))


def _checked(x: Any, parameters: Mapping[str, Any]) -> Array:
    """The input rows, and whether the weights fit them."""
    x = as_array(x, "x")
    check_rank(x, "x", 2, "(rows, inputs)")
    for name in ("loc", "scale"):
        shape = np.shape(parameters[name]) if name in parameters else None
        if shape is None or len(shape) != 2 or shape[1] != x.shape[1]:
            raise ShapeError(f"`{name}` of `parameters` {'is missing' if shape is None else f'has shape {shape}'}, but must have shape "
                             f"(outputs, {x.shape[1]}), the inputs being those of `x` {x.shape}")
    return x


def _product(x: Array, w: Tensor) -> Parameter:
    """x w_s^T for each s: (N, I), (S, O, I) -> (S, N, O)."""
    return linalg.product(x, ops.transpose(w, (0, 2, 1)))


def _placed(mean: Parameter, variance: Parameter, eps: Array) -> Parameter:
    """mean + sqrt(variance)*eps; where an input row is 0 the variance is, and its root has no slope."""
    positive = value_of(variance) > 0
    root = ops.where(positive, ops.sqrt(ops.where(positive, variance, 1.0)), 0.0)
    return ops.add(mean, ops.mul(root, eps))
