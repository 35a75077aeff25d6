"""One step of an optimizer for all its arrays at once, in place and in one pass; contiguous, writable arrays of one dtype are assumed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy import uintp
from numpy.typing import NDArray

from npreparam.kernels import _threads
from npreparam.kernels._atomic import await_stage, close, draw, enter, finish, new_counters
from npreparam.kernels._compile import by_type, kernel, loop
from npreparam.kernels._pointers import array_at

Array = NDArray[Any]
SMALL = 100_000  # numbers below which waking a second thread costs more than it saves
PIECE = 8192  # numbers of one array that a thread takes at once
P, G, M, V, COUNT = range(5)  # columns of the table of pieces: addresses and how many numbers


class AdamRates(NamedTuple):
    """The numbers of a step of Adam, in the dtype of the arrays."""

    keep1: Any  # b1
    take1: Any  # 1 - b1
    keep2: Any
    take2: Any
    size: Any  # rate/(1 - b1^t)
    scale: Any  # 1/sqrt(1 - b2^t)
    eps: Any


class AdagradRates(NamedTuple):
    """The numbers of a step of Adagrad."""

    size: Any
    eps: Any


@loop
def _adam(p: Any, g: Any, m: Any, rates: AdamRates, v: Any) -> None:
    for i in range(uintp(p.size)):
        m[i] = rates.keep1 * m[i] + rates.take1 * g[i]
        v[i] = rates.keep2 * v[i] + rates.take2 * g[i] * g[i]
        p[i] = p[i] - rates.size * (m[i] / (np.sqrt(v[i]) * rates.scale + rates.eps))


@loop
def _adagrad(p: Any, g: Any, s: Any, rates: AdagradRates, _: Any) -> None:
    for i in range(uintp(p.size)):
        s[i] = s[i] + g[i] * g[i]
        p[i] = p[i] - rates.size * (g[i] / (np.sqrt(s[i]) + rates.eps))


_move = by_type(_adam, _adagrad, AdagradRates)


@kernel
def _work(counters: Any, side: int, table: Any, rates: Any) -> None:
    """One thread's share of the pieces."""
    enter(counters, side)
    piece = draw(counters, 0, side, len(table))
    while piece >= 0:
        count, like = table[piece, COUNT], rates.size
        _move(array_at(table[piece, P], count, like), array_at(table[piece, G], count, like), array_at(table[piece, M], count, like), rates,
              array_at(table[piece, V], count, like))
        finish(counters, 0)
        piece = draw(counters, 0, side, len(table))
    await_stage(counters, 0, len(table))


def _run(rows: Sequence[tuple[Array, ...]], rates: Any) -> None:
    """One step for all rows of arrays (p, g, and what is kept for each), whose pieces the threads share."""
    sizes = np.array([row[0].size for row in rows])
    counts = -(-sizes // PIECE)
    owner = np.repeat(np.arange(len(rows)), counts)
    first = (np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]) * PIECE
    itemsize = rows[0][0].itemsize
    addresses = np.array([[array.__array_interface__["data"][0] for array in (*row, row[-1])[:COUNT]] for row in rows], np.int64)
    table = np.column_stack([addresses[owner] + first[:, None] * itemsize, np.minimum(PIECE, sizes[owner] - first)])
    threads = 1 if sizes.sum() < SMALL else _threads.get_num_threads()
    _threads.run_together(_work, new_counters(1), close, table, rates, threads=threads)


def adam(rows: Sequence[tuple[Array, ...]], rates: AdamRates) -> None:
    """m = b1*m + (1-b1)*g,  v = b2*v + (1-b2)*g^2,  p = p - size*m/(sqrt(v)*scale + eps), for each row (p, g, m, v)."""
    _run(rows, rates)


def adagrad(rows: Sequence[tuple[Array, ...]], rates: AdagradRates) -> None:
    """s = s + g^2,  p = p - size*g/(sqrt(s) + eps), for each row (p, g, s)."""
    _run(rows, rates)
