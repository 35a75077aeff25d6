"""Stored numbers are the nearest to the exact ones: chains of plain convolutions against responses to impulses in rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npreparam.checkpoints import expression as e
from npreparam.checkpoints import fold, recognise
from npreparam.checkpoints._read import Reader
from npreparam.checkpoints._rows import Rows
from npreparam.checkpoints.fold import EXACTLY
from npreparam.fuse.scalars import EXACT
from tests.checkpoints.states import STATES, edges, state

CHAINS = {
    "rvsr": "expand_conv:3,2,1,1+3 fea_conv:3,3,3,3+3 reduce_conv:2,3,1,1+2 expand1_conv:3,2,1,1+3 fea1_conv:3,3,3,3+3 reduce1_conv:2,3,1,1+2 "
            "res_conv3x3:2,2,3,3+2 res_conv1x1:2,2,1,1+2",
    "rrrb": "expand_conv:3,2,1,1+3 fea_conv:3,3,3,3+3 reduce_conv:2,3,1,1+2",
    "conv3xc": "sk:2,2,1,1+2 conv.0:3,2,1,1+3 conv.1:3,3,3,3+3 conv.2:2,3,1,1+2",
    "ecbsr": "conv3x3:2,2,3,3+2 conv1x1_3x3.k0!3,2,1,1 conv1x1_3x3.b0!3 conv1x1_3x3.k1!2,3,3,3 conv1x1_3x3.b1!2 " + edges("conv1x1_{}", 2),
    "tdesr": STATES["tdesr"], "fean": STATES["fean"]}


def exact(values):
    values = np.asarray(values)
    return np.array([Fraction(float(value)) for value in values.flat], object).reshape(values.shape)


def respond(node, tensors, x):
    """A node applied to x (channels, height, width) of Fractions, from its definition."""
    match node:
        case e.Sum():
            return sum(respond(term, tensors, x) for term in node.terms)
        case e.Sequence():
            for step in node.steps:
                x = respond(step, tensors, x)
            return x
        case e.Identity():
            return x
        case e.Shuffle():
            return x[[group * (len(x) // node.groups) + i for i in range(len(x) // node.groups) for group in range(node.groups)]]
        case e.Pad():
            h, w = node.amount
            return padded(x, h, w) if h > 0 else x[:, -h : x.shape[1] + h, -w : x.shape[2] + w]
    kernel = exact(tensors[node.weight]) * (exact(tensors[node.factor]) if node.factor else 1)
    x = padded(x, *node.padding)
    kh, kw = kernel.shape[2:]
    height, width, per_group = x.shape[1] - kh + 1, x.shape[2] - kw + 1, kernel.shape[1]
    y = np.full((len(kernel), height, width), Fraction(0), object)
    for o, i, r, c in np.ndindex(*kernel.shape):
        channel = o // (len(kernel) // node.groups) * per_group + i
        y[o] = y[o] + kernel[o, i, r, c] * x[channel, r : r + height, c : c + width]
    return y if node.bias is None else y + exact(tensors[node.bias])[:, None, None]


def padded(x, h, w):
    wide = np.full((len(x), x.shape[1] + 2 * h, x.shape[2] + 2 * w), Fraction(0), object)
    wide[:, h : h + x.shape[1], w : w + x.shape[2]] = x
    return wide


def errors(block, tensors, folded):
    """For every stored number its distance from the exact one, in halves of its ulp."""
    kernel, (outputs, inputs, kh, kw) = folded.weight, folded.weight.shape
    blank = np.full((inputs, 2 * kh - 1, 2 * kw - 1), Fraction(0), object)  # at its centre every window sees all of the kernel
    bias = respond(block.expression, tensors, blank)[:, kh - 1, kw - 1]
    found = [distance(folded.bias[o], bias[o]) for o in range(outputs)]
    for i in range(inputs):
        pulse = blank.copy()
        pulse[i, kh - 1, kw - 1] = Fraction(1)
        response = respond(block.expression, tensors, pulse)
        for o, r, c in np.ndindex(outputs, kh, kw):
            at = kh - 1 + kh // 2 - r, kw - 1 + kw // 2 - c
            found.append(distance(kernel[o, i, r, c], response[(o, *at)] - bias[o]))
    return found


def distance(stored, number):
    return abs(Fraction(float(stored)) - number) / (Fraction(float(np.spacing(np.abs(stored)))) / 2)


@pytest.mark.parametrize("family", CHAINS)
@settings(max_examples=4)
@given(seed=st.integers(0, 2**32), dtype=st.sampled_from([np.float16, np.float32, np.float64]), spread=st.integers(0, 12))
def test_chains_are_correctly_rounded(family, seed, dtype, spread):
    """Parameters of several orders of magnitude, in float32."""
    rng = np.random.default_rng(seed)
    tensors = state(CHAINS[family])
    tensors = {name: np.float32(rng.standard_normal(value.shape) * np.exp2(rng.integers(-spread, 1, value.shape))) for name, value in tensors.items()}
    block, = recognise(tensors, family, identity=True).blocks
    folded = fold(block, tensors, dtype)
    assert folded.rounding == EXACTLY
    assert max(errors(block, tensors, folded)) <= 1
    if dtype != np.float16:  # planted fault: the next number is too far
        folded.weight.flat[0] = np.nextafter(folded.weight.flat[0], dtype(np.inf))
        assert max(errors(block, tensors, folded)) > 1


@pytest.mark.parametrize("family", sorted(set(STATES) - {"repmlp"}))
def test_one_output_at_a_time_is_the_same_map(family):
    """With ==: the rows that repair single numbers, multiplied from the other end."""
    block, = recognise(state(STATES[family]), family, eps=1e-5, stride=1, identity=True).blocks
    tensors = {name: np.float32(value) for name, value in state(STATES[family]).items()}
    reader = Reader(block.expression, tensors)
    whole, one = reader(EXACT), Rows(reader)
    rows, columns = {0, whole.outputs - 1}, whole.blocks.shape[2]
    for row in rows:
        first = row // (whole.outputs // whole.groups) * columns
        for column in range(columns):
            entry = one.entry(row, first + column, whole.outputs)(EXACT)
            assert entry.bias[0] == whole.bias[row]
            for tap, matrix in zip(entry.taps, entry.blocks, strict=True):
                assert matrix[0, 0] == whole.blocks[whole.taps.index(tap), row, column]
