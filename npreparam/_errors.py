"""The exception classes: every one is a ValueError or a TypeError, so callers need not import them to catch them."""


class ArgumentError(ValueError):
    """An argument has a value outside its rule (a stride of 0, a negative padding, an unknown padding name).

    >>> from npreparam import Window
    >>> Window.of(3, stride=0)
    Traceback (most recent call last):
    npreparam._errors.ArgumentError: `stride` (=0) must be positive
    """


class ShapeError(ArgumentError):
    """Shapes do not fit each other, an array has the wrong rank, or a window would produce no output.

    >>> import numpy as np
    >>> from npreparam import ops
    >>> ops.matmul(np.ones((2, 3)), np.ones((2, 3)))
    Traceback (most recent call last):
    npreparam._errors.ShapeError: the inner lengths must agree: axis 1 of `a` (=3) and axis 0 of `b` (=2)
    """


class DTypeError(TypeError):
    """An array has a dtype that the operation does not take, or two arrays of one call have different dtypes.

    >>> import numpy as np
    >>> from npreparam import ops
    >>> ops.add(np.ones(2), np.ones(2, np.float32))
    Traceback (most recent call last):
    npreparam._errors.DTypeError: all arrays of one call must have the same dtype, got `x` float64, `y` float32; convert with .astype
    """


class UnusedInputError(ValueError):
    """A gradient was asked for with respect to an input that the output does not depend on.

    >>> import numpy as np
    >>> from npreparam import ops
    >>> from npreparam.tape import Tensor, grad
    >>> grad(ops.sum(Tensor(np.ones(2))), Tensor(np.ones(2), "mu"))    # doctest: +ELLIPSIS
    Traceback (most recent call last):
    npreparam._errors.UnusedInputError: the output does not depend on `mu` (shape (2,)): no differentiable path leads there. ...
    """


class StateError(ValueError):
    """A state dict does not fit the module it is loaded into.

    >>> import numpy as np
    >>> from npreparam.nn import Linear
    >>> Linear(2, 1, bias=False, rng=np.random.default_rng(0)).load_state_dict({})    # doctest: +ELLIPSIS
    Traceback (most recent call last):
    npreparam._errors.StateError: the state dict does not fit Linear:...missing: weight (1, 2)
    """


class FormatError(ValueError):
    """A file is truncated, corrupt, or not of the format it should be.

    >>> import os
    >>> from npreparam.checkpoints import load
    >>> load(os.devnull)    # doctest: +ELLIPSIS
    Traceback (most recent call last):
    npreparam._errors.FormatError: ...: cannot be read: not a regular file
    """


class FusionError(ValueError):
    """A linear tree is not one convolution: says which branch, why, and what would make it exact.

    >>> import numpy as np
    >>> from npreparam import nn
    >>> conv = nn.Conv2d(1, 1, 3, padding=1, bias=False, rng=np.random.default_rng(0))
    >>> nn.fuse_to_one(nn.Sequential(conv, conv))    # doctest: +ELLIPSIS
    Traceback (most recent call last):
    npreparam._errors.FusionError: branch 1: the second of two maps pads the height, where the first spans 3 elements or pads; ...
    """

    def __init__(self, reason: str, remedy: str, branch: str = "") -> None:
        self.reason, self.remedy, self.branch = reason, remedy, branch
        super().__init__(f"{f'branch {branch}: ' if branch else ''}{reason}; {remedy}")

    def within(self, name: str) -> "FusionError":
        """The same refusal, seen from the module that holds the branch under `name`."""
        return FusionError(self.reason, self.remedy, f"{name}.{self.branch}" if self.branch else name)
