"""Mistakes in activation functions."""

from __future__ import annotations

import math

import numpy as np

from npreparam.conformance.mistakes._registry import mistake, row

LN2 = math.log(2)

mistake("softplus", "overflows", lambda right, x: np.log(1.0 + np.exp(x)), look="max(x, 0) + log1p(exp(-|x|))", example={"x": row(89)})
mistake("softplus", "log1p alone: overflows", lambda right, x: np.log1p(np.exp(x)), look="max(x, 0) + log1p(exp(-|x|))", example={"x": row(90)})
mistake("softplus", "zero for negative x", lambda right, x: np.log(1.0 + np.exp(-abs(x))) + np.maximum(x, 0.0),
        look="log1p, not log(1 + ...)", example={"x": row(-17)})
mistake("softplus", "base 2", lambda right, x: right.softplus(x=x) / LN2, look="the natural logarithm", example={"x": row(0)})
mistake("softplus", "of -x", lambda right, x: right.softplus(x=-x), look="the sign", example={"x": row(1)})
mistake("softplus", "x itself from 10 on", lambda right, x: np.where(x > 10, x, right.softplus(x=x)), look="the threshold, 20 in float32",
        example={"x": row(11)})
mistake("softplus", "x itself from 20 on", lambda right, x: np.where(x > 20, x, right.softplus(x=x)), look="the threshold, too low for float64",
        example={"x": np.array([21.0])})
mistake("softplus", "relu", lambda right, x: np.maximum(x, 0.0), look="which function is called", example={"x": row(1)})
mistake("sigmoid", "overflows", lambda right, x: np.exp(x) / (1.0 + np.exp(x)), look="exp(-|x|)", example={"x": row(89)})
mistake("sigmoid", "as (1 + tanh(x/2))/2", lambda right, x: (np.tanh(x / 2) + 1.0) / 2, look="small values cancel", example={"x": row(-20)})
mistake("sigmoid", "hard: x/6 + 1/2", lambda right, x: np.minimum(np.maximum(x / 6 + 0.5, 0.0), 1.0), look="which function is called",
        example={"x": row(1)})
mistake("sigmoid", "hard: x/5 + 1/2", lambda right, x: np.minimum(np.maximum(x / 5 + 0.5, 0.0), 1.0), look="which function is called",
        example={"x": row(1)})
mistake("sigmoid", "of -x", lambda right, x: right.sigmoid(x=-x), look="the sign", example={"x": row(1)})
mistake("sigmoid", "base 2", lambda right, x: 1.0 / (1.0 + np.exp(x * -LN2)), look="exp, not exp2", example={"x": row(1)})
mistake("sigmoid", "its derivative", lambda right, x: right.sigmoid(x=x) * right.sigmoid(x=-x), look="which function is called",
        example={"x": row(0)})
mistake("tanh", "overflows", lambda right, x: (np.exp(2 * x) - 1.0) / (np.exp(2 * x) + 1.0), look="exp(-2|x|)", example={"x": row(45)})
mistake("tanh", "cancels near 0", lambda right, x: 2 / (1.0 + np.exp(-2 * x)) - 1.0, look="expm1", example={"x": row(2**-12)})
mistake("tanh", "x itself, cut at 1", lambda right, x: np.minimum(np.maximum(x, -1.0), 1.0), look="which function is called", example={"x": row(1)})
mistake("tanh", "of x/2", lambda right, x: np.tanh(x / 2), look="tanh(x) = 2*sigmoid(2x) - 1", example={"x": row(1)})
mistake("tanh", "of 2x", lambda right, x: np.tanh(2 * x), look="tanh(x) = 2*sigmoid(2x) - 1", example={"x": row(1)})
mistake("tanh", "sigmoid", lambda right, x: right.sigmoid(x=x), look="which function is called", example={"x": row(0)})
mistake("silu", "sigmoid of 1.702x", lambda right, x: x / (1.0 + np.exp(x * -1.702)), look="the approximation of GELU", example={"x": row(1)})
mistake("silu", "hard: x*relu6(x + 3)/6", lambda right, x: x * np.minimum(np.maximum(x + 3.0, 0.0), 6.0) / 6, look="which function is called",
        example={"x": row(1)})
mistake("silu", "overflows", lambda right, x: x * (np.exp(x) / (1.0 + np.exp(x))), look="exp(-|x|)", example={"x": row(89)})
mistake("silu", "x left out", lambda right, x: right.sigmoid(x=x), look="x*sigmoid(x)", example={"x": row(0)})
mistake("silu", "relu", lambda right, x: np.maximum(x, 0.0), look="which function is called", example={"x": row(1)})
mistake("silu", "x*tanh(softplus(x))", lambda right, x: x * np.tanh(right.softplus(x=x)), look="mish, another function", example={"x": row(1)})
