"""Mistakes in linear layers."""

from __future__ import annotations

from npreparam.conformance.mistakes._registry import counting, mistake, row
from npreparam.conformance.mistakes.conv2d import blank, first_for_all

mistake("linear", "weights transposed", lambda right, w, **r: right.linear(w=w.T, **r),
        look="y = x @ w.T", example={"x": counting(1, 2), "w": counting(2, 2)})
mistake("linear", "bias left out", lambda right, b, **r: right.linear(b=None, **r),
        look="the bias", example={"x": counting(1, 1), "w": counting(1, 1), "b": row(1)})
mistake("linear", "bias added twice", lambda right, b, **r: right.linear(b=b + b, **r),
        look="the bias, in the accumulator's start and again at the end", example={"x": counting(1, 1), "w": counting(1, 1), "b": row(1)})
mistake("linear", "bias of the first output used for all", lambda right, b, **r: right.linear(b=first_for_all(b, len(b)), **r),
        look="the bias's index", example={"x": counting(1, 1), "w": counting(2, 1), "b": row(1, 2)})
mistake("linear", "last input left out", lambda right, x, **r: right.linear(x=blank(x, slice(None), -1), **r),
        look="the end of the inner loop", example={"x": counting(1, 1), "w": counting(1, 1)})
mistake("linear", "last output left out", lambda right, **r: (lambda y: blank(y, slice(None), -1))(right.linear(**r)),
        look="the end of the loop over outputs", example={"x": counting(1, 2), "w": counting(2, 2)})
mistake("linear", "first row used for the whole batch", lambda right, x, **r: right.linear(x=first_for_all(x, len(x)), **r),
        look="the row's offset in the batch", example={"x": counting(2, 1), "w": counting(1, 1)})
mistake("linear", "negative results cut off", lambda right, **r: (lambda y: (abs(y) + y) / 2)(right.linear(**r)),
        look="a fused activation", example={"x": -counting(1, 1), "w": counting(1, 1)})
