"""Convolutions and the batch norms after them, in networks that no table knows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from npreparam.checkpoints._leaves import STATISTICS

Shapes = Mapping[str, tuple[int, ...]]


def pairs(shapes: Shapes) -> Iterator[tuple[str, str, str]]:
    """(convolution, batch norm, what is assumed) for every batch norm whose name has a counterpart with a kernel.

    In a Sequential, N follows N-1. Otherwise `bn3` or `norm3` is taken to follow `conv3`, as everybody writes it, but no state dict says so.
    """
    for name in shapes:
        for _, var in STATISTICS:
            if name.endswith(f".{var}"):
                norm = name.removesuffix(f".{var}")
                conv, assumed = _counterpart(norm, shapes)
                if conv:
                    yield conv, norm, assumed


def _counterpart(norm: str, shapes: Shapes) -> tuple[str, str]:
    head, _, last = norm.rpartition(".")
    if last.isdigit():
        candidates = [str(int(last) - 1)] if int(last) else []
    else:
        candidates = [re.sub("batchnorm|bn|norm", word, last, count=1) for word in ("conv", "dwconv", "fc", "linear")]
    for candidate in candidates:
        conv = f"{head}.{candidate}" if head else candidate
        if conv != norm and len(shapes.get(f"{conv}.weight", ())) >= 2:
            return conv, "" if last.isdigit() else f"that {norm} directly follows {conv}, as their names say"
    return "", ""


def is_transposed(shape: tuple[int, ...], channels: int) -> bool | None:
    """Whether a kernel whose output has `channels` channels is (I, O/groups, ...) rather than (O, I/groups, ...).

    None where the shape fits both, dense or in some number of groups, and the fused weights would differ.

    >>> is_transposed((16, 6, 3, 3), 16), is_transposed((8, 16, 3, 3), 16), is_transposed((16, 8, 3, 3), 16), is_transposed((16, 1, 3, 3), 16)
    (False, True, None, False)
    """
    if len(shape) < 3:
        return False
    if shape[0] != channels:
        return True
    return None if shape[1] > 1 and channels % shape[1] == 0 else False
