"""The cases: each is made from its key alone, so a sweep is a list of keys."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from npreparam.certified.bounds.profile import STORED
from npreparam.conformance.case import Case, Key
from npreparam.conformance.cases.builders import BUILDERS
from npreparam.conformance.cases.sources import KINDS, PlainSource, RandomSource
from npreparam.conformance.cases.tables import TABLES
from npreparam.conformance.layouts import LAYOUTS
from npreparam.conformance.relations import BATCHED, OF_CHANNELS, OTHER
from npreparam.conformance.truth import expected

SUMS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad", "conv_transpose2d", "linear", "normal_rsample", "max_pool2d", "avg_pool2d")
REFUSES_SPECIAL = ("cross_entropy", "bce_with_logits", "log_softmax", "normal_rsample", "normal_log_prob", "gaussian_kl", "batch_norm_grad",
                   "fuse_conv_bn", "fuse_repvgg")  # functions for which `certified` has no answer to NaN and infinities
WITH_OPTIONS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad", "conv_transpose2d", "linear", "batch_norm", "batch_norm_grad", "avg_pool2d",
                "max_pool2d", "fuse_conv_bn", "fuse_repvgg")  # functions that a target may offer without some of their arguments
EXACT_KINDS = ("impulse", "address", "lattice")


def make_case(key: Key) -> Case:
    """The case of a key: the same on every machine.

    >>> case = make_case(Key("conv2d", "geometry", "float32", 0, 3))
    >>> case.name, case.arguments["x"].shape, case.exact
    ('one channel', (1, 1, 4, 5), True)
    """
    rng = np.random.default_rng([key.seed, key.index, zlib.crc32(f"{key.op}/{key.phase}/{key.dtype}".encode())])
    return _PHASES[key.phase](key, rng)


def _pinned(key: Key, rng: np.random.Generator) -> Case:
    """The smallest input that shows a known mistake."""
    from npreparam.conformance.mistakes import pinned_cases  # which judges, too
    from npreparam.conformance.mistakes._trial import in_dtype

    example = in_dtype(pinned_cases(key.op, refused=True)[key.index], key.dtype)
    exact = not example.refused and is_exact(key.op, dict(example.arguments))
    return dataclasses.replace(example, phase=key.phase, key=key, exact=exact)


def pinned_count(op: str) -> int:
    """How many pinned cases a function has."""
    from npreparam.conformance.mistakes import pinned_cases

    return len(pinned_cases(op, refused=True))


def _exact(key: Key, rng: np.random.Generator) -> Case:
    kind = EXACT_KINDS[key.index % len(EXACT_KINDS)]
    arguments = _drawn(key.op, RandomSource(rng, key.dtype, kind))
    return Case(key.op, arguments, key.phase, kind, key, is_exact(key.op, arguments))


def _geometry(key: Key, rng: np.random.Generator) -> Case:
    table, source = TABLES[key.op], RandomSource(rng, key.dtype, "lattice")
    if key.index >= len(table):
        arguments, name = _drawn(key.op, source), "drawn"
    else:
        name, geometry = table[key.index]
        arguments = BUILDERS[key.op][1](source, geometry)
    return Case(key.op, arguments, key.phase, name, key, is_exact(key.op, arguments))


def _adjoint(key: Key, rng: np.random.Generator) -> Case:
    arguments = _drawn(key.op, RandomSource(rng, key.dtype, "lattice"))
    return Case(key.op, arguments, key.phase, "inner products", key, is_exact(key.op, arguments), relation="adjoint")


def _relation(key: Key, rng: np.random.Generator) -> Case:
    which = [("repeat", "contiguous"), *(("", layout) for layout in LAYOUTS if layout != "contiguous"), ("threads", "contiguous")]
    which += [("prefilled", "contiguous")] * (key.op in SUMS) + [("batch split", "contiguous")] * (key.op in BATCHED)
    which += [("channel permutation", "contiguous")] * (key.op in OF_CHANNELS)
    relation, layout = which[key.index % len(which)]
    arguments = _drawn(key.op, RandomSource(rng, key.dtype, "normal"))
    return Case(key.op, arguments, key.phase, relation or layout, key, layout=layout, relation=relation)


def _random(key: Key, rng: np.random.Generator) -> Case:
    kinds = [kind for kind in KINDS if kind != "special" or key.op not in REFUSES_SPECIAL]
    kind = kinds[key.index % len(kinds)]
    if key.index == 0 and key.op in WITH_OPTIONS:  # a target that has none of the options is asked about rounding all the same
        arguments = BUILDERS[key.op][1](PlainSource(rng, key.dtype, kind), TABLES[key.op][0][1])
        return Case(key.op, arguments, key.phase, f"{kind}, plain", key)
    arguments = _drawn(key.op, RandomSource(rng, key.dtype, kind))
    if kind == "special" and arguments.get("training"):
        del arguments["training"]
        arguments.pop("momentum", None)
    if key.op == "silu":  # at -infinity, x*sigmoid(x) and x/(1 + exp(-x)) are NaN by their parts, 0 as limits
        arguments["x"] = np.where(arguments["x"] == -np.inf, arguments["x"].dtype.type(0), arguments["x"])
    return Case(key.op, arguments, key.phase, kind, key)


def _drawn(op: str, source: Any) -> dict[str, Any]:
    geometry, builder = BUILDERS[op]
    return builder(source, geometry(source))


def is_exact(op: str, arguments: dict[str, Any]) -> bool:
    """Whether no sum in any order needs more bits than the dtype has: sums of products of integers whose magnitudes add up to 2^p at most.

    Average pooling must divide by a power of two besides, so that results, and terms divided before they are added, are multiples of 2^-k.
    """
    if op not in SUMS:
        return False
    arrays = [value for value in arguments.values() if isinstance(value, np.ndarray)]
    if not all((np.asarray(4 * value, np.float64) == np.rint(np.asarray(4 * value, np.float64))).all() for value in arrays):
        return False
    room = 2.0 ** STORED[arrays[0].dtype.name].precision / 16  # multiples of 1/4, so products of 1/16
    if op == "avg_pool2d":
        count = int(np.prod(np.broadcast_to(arguments["kernel"], 2)))
        if count & (count - 1) or not arguments.get("count_include_pad", True):
            return False
        room /= count
    magnitudes = {name: np.abs(value) if isinstance(value, np.ndarray) else value for name, value in arguments.items()}
    return all(values.max(initial=0) <= room for values in expected(op, magnitudes, np.float64))


def keys(op: str, phase: str, dtype: str, seed: int, indices: Sequence[int]) -> list[Key]:
    """The keys of one phase of one function."""
    if phase == "adjoint" and op not in OTHER:
        return []
    return [Key(op, phase, dtype, seed, index) for index in indices]


_PHASES = {"pinned": _pinned, "exact": _exact, "geometry": _geometry, "adjoint": _adjoint, "relation": _relation, "random": _random}
