"""What every certified function returns."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Certified(NamedTuple):
    """A correctly rounded array (or a tuple of arrays), and how many of its elements the candidate did not decide.

    >>> from npreparam import certified
    >>> certified.linear(np.ones((1, 2)), np.ones((1, 2))).value
    array([[2.]])
    """

    value: Any
    repaired: int

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """What numpy.asarray makes of it: the value."""
        return np.array(self.value, dtype) if copy else np.asarray(self.value, dtype)
