"""Hypothesis strategies for the inputs of convolutions, batch norm, losses and all other judged functions (extra `test`).

Geometry is drawn first and the arrays to fit it, so nothing is filtered; everything shrinks towards one image, one channel, a 1x1 kernel,
stride 1, no padding, and zeros. Three kinds of numbers: "lattice" (small integers, on which all honest implementations agree exactly as long
as no sum outgrows the significand), "floats" (moderate ones), and "extreme" (the whole finite range, subnormal numbers included).

    from hypothesis import given
    from npreparam.conformance import assert_conforms
    from npreparam.conformance.strategies import arguments

    @given(arguments("conv2d", "float32"))
    def test_my_convolution(args):
        assert_conforms(my_conv2d(**args), "conv2d", args)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ArgumentError
from npreparam.certified.strategies import geometries, lattice, order_free
from npreparam.conformance.case import Case
from npreparam.conformance.cases import is_exact
from npreparam.conformance.cases.builders import BUILDERS
from npreparam.conformance.search import WIDTHS, DrawnSource
from npreparam.exact.rounding import dtype_of

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hypothesis_numpy
except ImportError:
    raise ImportError("npreparam.conformance.strategies needs Hypothesis: pip install 'npreparam[test]'") from None

__all__ = ["KINDS", "arguments", "arrays", "cases", "conv2d_arguments", "geometries", "lattice", "order_free"]

KINDS = ("lattice", "floats", "extreme")


def arrays(shape: tuple[int, ...], dtype: str = "float32", kind: str = "floats") -> st.SearchStrategy[NDArray[Any]]:
    """Arrays of one format and kind.

    Raises ArgumentError.

    >>> from hypothesis import find
    >>> find(arrays((1,), "float32", "lattice"), lambda x: x.sum() > 3)
    array([4.], dtype=float32)
    """
    if dtype not in WIDTHS:
        raise ArgumentError(f"`dtype` (={dtype!r}) must be one of {', '.join(WIDTHS)}")
    if kind not in KINDS:
        raise ArgumentError(f"`kind` (={kind!r}) must be one of {', '.join(KINDS)}")
    if kind == "lattice":
        elements = st.integers(-4, 4).map(float)
    elif kind == "floats":
        elements = st.floats(-1024.0, 1024.0, width=WIDTHS[dtype])  # type: ignore[arg-type]
    else:
        elements = st.floats(allow_nan=False, allow_infinity=False, width=WIDTHS[dtype])  # type: ignore[arg-type]
    drawn = hypothesis_numpy.arrays(np.float64, shape, elements=elements, fill=st.just(0.0))
    return drawn.map(lambda x: _finite(x.astype(dtype_of(dtype))))


def _finite(x: NDArray[Any]) -> NDArray[Any]:
    """bfloat16 may round the largest float16 or float32 numbers to infinity."""
    return np.where(np.isfinite(x), x, x.dtype.type(0))


class _Source(DrawnSource):
    """The judge's source of numbers, of one kind; variances, deviations and targets stay as moderate as they must be."""

    def __init__(self, draw: Any, dtype: str, kind: str) -> None:
        super().__init__(draw, dtype)
        self.kind = kind

    def array(self, shape: tuple[int, ...], role: str = "", along: int = 1) -> NDArray[Any]:
        """An array of this kind."""
        return super().array(shape, role) if role in ("positive", "target") else self.draw(arrays(shape, self.name, self.kind))


@st.composite
def arguments(draw: st.DrawFn, op: str, dtype: str = "float32", kind: str = "floats") -> dict[str, Any]:
    """The arguments of a judged function, by name: what it is called with, and what `assert_conforms` takes.

    Raises ArgumentError.

    >>> from hypothesis import find
    >>> drawn = find(arguments("batch_norm", "float64", "lattice"), lambda args: args.get("training", False))
    >>> sorted(drawn)[:3], drawn["x"].dtype
    (['beta', 'gamma', 'running_mean'], dtype('float64'))
    """
    if op not in BUILDERS:
        raise ArgumentError(f"`op` (={op!r}) must be one of {', '.join(BUILDERS)}")
    source = _Source(draw, dtype, kind)
    geometry, builder = BUILDERS[op]
    return builder(source, geometry(source))


def conv2d_arguments(dtype: str = "float32", kind: str = "floats") -> st.SearchStrategy[dict[str, Any]]:
    """The arguments of a convolution: images, weights, perhaps a bias, stride, padding by numbers or name, dilation, groups.

    >>> from hypothesis import find
    >>> find(conv2d_arguments(kind="lattice"), lambda args: args["x"].any())["x"].shape
    (1, 1, 1, 1)
    """
    return arguments("conv2d", dtype, kind)


def cases(op: str, dtype: str = "float32", kind: str = "floats") -> st.SearchStrategy[Case]:
    """Cases for `judge_case`: of zero tolerance where every order of summation is exact.

    >>> from hypothesis import find
    >>> find(cases("linear", kind="lattice"), lambda case: True).exact
    True
    """
    return arguments(op, dtype, kind).map(lambda args: Case(op, args, "search", kind, exact=is_exact(op, args)))
