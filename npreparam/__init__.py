"""A from-scratch NumPy and Numba reference of structural and generative re-parameterization.

* `npreparam.ops`: primitives over arrays (convolution, batch norm, ...), each with its gradient beside it
* `npreparam.tape`: reverse-mode differentiation of them
* `npreparam.fuse`: several convolution branches with batch norm as one convolution
* `npreparam.nn`, `npreparam.models`: layers, blocks, optimizers; a RepVGG classifier and a VAE
* `npreparam.exact`: the same definitions in rational arithmetic, correctly rounded
* `npreparam.certified`: the same numbers as `exact` at the speed of arrays; `certified.bounds`: how far an implementation may be from them
"""

from npreparam._errors import ArgumentError, DTypeError, FormatError, FusionError, ShapeError, StateError, UnusedInputError
from npreparam._shapes import Window
from npreparam.kernels._threads import get_num_threads, set_num_threads

__version__ = "0.1.0"

__all__ = ["ArgumentError", "DTypeError", "FormatError", "FusionError", "ShapeError", "StateError", "UnusedInputError", "Window", "__version__",
           "get_num_threads", "set_num_threads"]
