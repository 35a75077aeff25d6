"""`fuse`: every maximal linear part of a module as one layer."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npreparam import fuse as algebra
from npreparam._errors import ArgumentError, FusionError
from npreparam.fuse import AffineConv
from npreparam.fuse.scalars import FLOAT64
from npreparam.nn.channels import Scale
from npreparam.nn.containers import Concat, Sequential, Sum, branch_map, compose_parts
from npreparam.nn.layers import Conv2d, ConvTranspose2d, Linear, ReLU
from npreparam.nn.module import Module
from npreparam.nn.rounded import rounded_map


def fuse(module: Module, *, border: str = "exact", partial: bool = False, dtype: DTypeLike | None = None, rounding: str = "float64") -> Module:
    """A module that computes in evaluation mode what `module` does, with every maximal linear part as one layer.

    Chains of convolutions, batch norms, scales, poolings and paddings, and sums and concatenations of such, become one convolution (Linear,
    ConvTranspose2d, Scale where they are that); activations, squeeze-and-excitation and what else is not linear stays, with its linear parts
    fused. A convolution that cannot be merged with the one before it exactly begins a new layer. `module` and its parameters never change;
    what is not fused shares them. `border` "interior" also merges where outputs at the border come out wrong.

    Rounding: float64 arithmetic, each number rounded once to `dtype` (that of the module's parameters); with `rounding` "correct" each is the
    number of `dtype` nearest to the exact value, which float64 storage makes slow.

    Raises FusionError for a linear branch of a sum or concatenation that is not one convolution: it names the branch, the reason, and what
    would make it exact. With `partial` such a branch stays beside the others. FusionError too where a fused number is not finite.

    Source: Ding et al., RepVGG, arXiv 2101.03697, section 3.3, and Diverse Branch Block, arXiv 2103.13425, section 3.2, generalized.

    >>> from npreparam.nn import BatchNorm2d, Identity
    >>> rng = np.random.default_rng(0)
    >>> tree = Sequential(Sum(Conv2d(2, 2, 3, padding=1, rng=rng), Identity()), BatchNorm2d(2), ReLU(), Conv2d(2, 2, 1, rng=rng))
    >>> [type(layer).__name__ for layer in fuse(tree)]
    ['Conv2d', 'Conv2d']
    """
    if dtype is None and not module.parameters():
        return copy.copy(module)  # nothing to multiply, and no dtype to do it in
    if rounding not in ("float64", "correct"):
        raise ArgumentError(f"`rounding` (={rounding!r}) must be 'float64' or 'correct'")
    options = _Options(border, partial, _dtype_of(module) if dtype is None else np.dtype(dtype), rounding == "correct")
    parts = _fused_parts(module, options, "")
    return parts[0] if len(parts) == 1 else Sequential(*parts)


class _Options:
    """What `fuse` was asked for."""

    def __init__(self, border: str, partial: bool, dtype: np.dtype[Any], correct: bool) -> None:
        self.border, self.partial, self.dtype, self.correct = border, partial, dtype, correct


def _dtype_of(module: Module) -> np.dtype[Any]:
    return next((parameter.dtype for parameter in module.parameters().values()), np.dtype(np.float32))


def _fused_parts(module: Module, options: _Options, name: str) -> list[Module]:
    """The layers that, one after the other, are the fused module."""
    found: list[Module] = []
    run: AffineConv | None = None
    members: list[Module] = []
    for inner, part in module.parts():
        path = ".".join(filter(None, (name, inner)))
        own = _map_of(part, options.border)
        if own is not None:
            joined = None if run is None else _joined(own, run, options)
            if run is not None and joined is None:  # not one convolution: a new one begins
                found.append(_run_as_layer(run, members, options))
            run, members = (own, [part]) if joined is None else (joined, [*members, part])
            continue
        if run is not None:
            found.append(_run_as_layer(run, members, options))
            run = None
        if isinstance(part, ReLU) and found and isinstance(found[-1], Conv2d) and not found[-1].relu:
            found[-1] = _rectified(found[-1])
        else:
            found.append(_fused_inside(part, options, path))
    return found if run is None else [*found, _run_as_layer(run, members, options)]


@np.errstate(all="ignore")
def _joined(second: AffineConv, first: AffineConv, options: _Options) -> AffineConv | None:
    try:
        return algebra.compose(second, first, options.border)
    except FusionError:
        return None


def _run_as_layer(run: AffineConv, members: list[Module], options: _Options) -> Module:
    """One layer for modules one after the other; a layer by itself stays what it is."""
    alone = members[0] if len(members) == 1 and not list(members[0].children()) else None
    if alone is None:
        layer = as_layer(rounded_map(members, options.dtype, options.border) if options.correct else run, options.dtype)
        if not all(np.isfinite(parameter.value).all() for parameter in layer.parameters().values()):
            raise FusionError(f"its fused numbers are not all finite in {options.dtype}",
                              "look for NaN and infinity in its parameters and statistics, or fuse to a wider dtype")
        return layer
    return copy.copy(alone) if all(p.dtype == options.dtype for p in alone.parameters().values()) else alone.astype(options.dtype)


@np.errstate(all="ignore")  # what is not finite is refused in the end
def _map_of(module: Module, border: str) -> AffineConv | None:
    try:
        return module.as_affine_conv(FLOAT64, border)
    except FusionError:
        return None


def _rectified(conv: Conv2d) -> Conv2d:
    conv = copy.copy(conv)
    conv.relu = True
    return conv


def _fused_inside(module: Module, options: _Options, name: str) -> Module:
    """A module that is no map, with what is inside it fused."""
    if isinstance(module, Sum | Concat):
        return _fused_branches(module, options, name)
    twin = copy.copy(module)
    for child_name, child in module.children():
        parts = _fused_parts(child, options, f"{name}.{child_name}".lstrip("."))
        setattr(twin, child_name, parts[0] if len(parts) == 1 else Sequential(*parts))
    return twin


def _fused_branches(module: Sum | Concat, options: _Options, name: str) -> Module:
    """The linear branches of a sum as one, beside the others; the branches of a concatenation each by itself."""
    linear: dict[str, Module] = {}
    for child_name, child in module.children():
        if is_linear(child):
            try:
                if child.parts():
                    branch_map(child_name, child, FLOAT64, options.border)
                linear[child_name] = child
            except FusionError as error:
                if not options.partial:
                    raise (error.within(name) if name else error) from None
    fused: dict[str, Module] = {}
    merged = linear if isinstance(module, Sum) and any(child.parts() for child in linear.values()) else {}
    if merged:  # under the name of the first of them
        total = Sum(**merged)
        try:
            fused[next(iter(merged))] = _run_as_layer(total.as_affine_conv(FLOAT64, options.border), [total], options)
        except FusionError as error:  # each is one convolution, but their outputs are equally large for some sizes only
            if not options.partial:
                raise (error.within(name) if name else error) from None
            merged = {}
    for child_name, child in module.children():
        if child_name not in merged:
            parts = _fused_parts(child, options, f"{name}.{child_name}".lstrip("."))
            fused[child_name] = parts[0] if len(parts) == 1 else Sequential(*parts)
    return type(module)(**fused)


def is_linear(module: Module) -> bool:
    """Whether every layer of a module is affine by itself."""
    parts = module.parts()
    if len(parts) != 1 or parts[0][1] is not module:
        return all(is_linear(part) for _, part in parts)
    if isinstance(module, Sum | Concat):
        return all(is_linear(child) for _, child in module.children())
    return _map_of(module, "exact") is not None


def as_layer(conv: AffineConv, dtype: DTypeLike, kernel: tuple[int, int] | None = None) -> Module:
    """The layer that computes a map, its numbers rounded to `dtype`; the smallest kernel, or one of the size `kernel`.

    Raises FusionError for a map that no layer computes: over other than 0 or 2 axes, or with a constant other than 0 around the input.
    """
    with np.errstate(over="ignore"):
        if conv.rank == 0 and conv.is_diagonal:
            return Scale.holding(conv.blocks[0, :, 0].astype(dtype), conv.bias.astype(dtype))
        if conv.rank == 0:
            return Linear.holding(algebra.regroup(conv, 1).blocks[0].astype(dtype), conv.bias.astype(dtype))
        if conv.rank != 2:
            raise FusionError(f"there is no layer over {conv.rank} axes", "use `npreparam.fuse.to_conv2d`")
        if conv.transposed:
            w, b, *geometry = algebra.to_conv_transpose2d(conv)
            return ConvTranspose2d.holding(w.astype(dtype), b.astype(dtype), *geometry)
        w, b, *geometry = algebra.to_conv2d(conv, kernel)
        return Conv2d.holding(w.astype(dtype), b.astype(dtype), *geometry)


def fuse_to_one(module: Module, *, border: str = "exact", dtype: DTypeLike | None = None) -> Module:
    """A linear module as one layer, or a FusionError that says which branch is in the way, why, and what would make it exact.

    >>> from npreparam.nn import ConvBN
    >>> fuse_to_one(ConvBN(2, 3, 3, padding=1, rng=np.random.default_rng(0))).weight.shape
    (3, 2, 3, 3)
    """
    conv = compose_parts(module.parts(), FLOAT64, border)
    return as_layer(conv, _dtype_of(module) if dtype is None else dtype)
