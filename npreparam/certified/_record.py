"""What every certified function returns."""

from __future__ import annotations

from typing import Any, NamedTuple


class Certified(NamedTuple):
    """A correctly rounded array (or a tuple of arrays), and how many of its elements the candidate did not decide."""

    value: Any
    repaired: int
