"""A from-scratch NumPy and Numba reference of structural and generative re-parameterization.

* `npreparam.ops`: primitives over arrays (convolution, batch norm, ...), each with its gradient beside it
* `npreparam.tape`: reverse-mode differentiation of them
* `npreparam.prob`: distributions whose samples are differentiable functions of parameters and noise, and their divergences
* `npreparam.fuse`: the algebra of affine convolutions: branches, chains, batch norm, pooling as one convolution, or refused with the reason
* `npreparam.nn`, `npreparam.models`: layers, the published blocks, optimizers, fusion of whole trees; a RepVGG classifier and a VAE
* `npreparam.prob`: distributions with re-parameterized samples, divergences, gradient estimators
* `npreparam.checkpoints`: read, recognise and write trained networks without a framework
* `npreparam.conformance`: the judge of other implementations
* `npreparam.exact`: the same definitions in rational arithmetic, correctly rounded
* `npreparam.certified`: the same numbers as `exact` at the speed of arrays; `certified.bounds`: how far an implementation may be from them
"""

import importlib
from types import ModuleType

from npreparam._errors import ArgumentError, DTypeError, FormatError, FusionError, ShapeError, StateError, UnusedInputError
from npreparam._shapes import Window
from npreparam.kernels._threads import get_num_threads, set_num_threads

__version__ = "0.1.0"

__all__ = ["ArgumentError", "DTypeError", "FormatError", "FusionError", "ShapeError", "StateError", "UnusedInputError", "Window", "__version__",
           "get_num_threads", "set_num_threads"]

_STOREYS = ("certified", "checkpoints", "conformance", "exact", "fuse", "models", "nn", "ops", "plots", "prob", "tape")


def __getattr__(name: str) -> ModuleType:
    """The storeys as attributes, loaded when they are first used."""
    if name not in _STOREYS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
