"""Strided tensors in shared storages: the records that a PyTorch file describes its tensors with, and their arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from npreparam._errors import FormatError
from npreparam.checkpoints._checkpoint import Span
from npreparam.checkpoints._dtypes import Array

MAX_EXPANDED = 2**24  # elements of a tensor that repeats those of a smaller storage (stride 0): beyond, one copy of it could exhaust memory
MAX_AXES = 64

TYPES = {"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32", "Short": "int16",
         "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexDouble": "complex128", "ComplexFloat": "complex64"}
STORAGES = {f"torch.{kind}Storage": name for kind, name in TYPES.items()}
STORAGES |= {"torch.storage.UntypedStorage": "uint8", "torch.UntypedStorage": "uint8"}
DTYPES = {f"torch.{name}": name for name in (
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool", "complex64",
    "complex128", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")}


def is_count(value: Any) -> bool:
    """A non-negative integer that fits in 63 bits; bool is none."""
    return type(value) is int and 0 <= value < 2**63


@dataclass(eq=False, slots=True)
class Storage:
    """A vector of numbers in a file, found under `key`; `flat` is set when the reader has reached it."""

    key: str
    dtype: np.dtype[Any]
    size: int
    flat: Array | None = None

    def vector(self) -> Array:
        """Its numbers; FormatError where the file does not hold them."""
        if self.flat is None:
            raise FormatError(f"storage {self.key!r} is used, but not in the file")
        if len(self.flat) < self.size:
            raise FormatError(f"storage {self.key!r} has {len(self.flat)} elements; {self.size} were announced")
        return self.flat[: self.size]


@dataclass(eq=False, slots=True)
class StridedTensor:
    """Element (i, j, ...) is storage[offset + i*strides[0] + j*strides[1] + ...]."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any] | None = None  # where it differs from the storage's (untyped storages)
    conjugate: bool = False
    negate: bool = False

    def __post_init__(self) -> None:
        whole = (isinstance(self.storage, Storage) and is_count(self.offset) and isinstance(self.shape, tuple) and isinstance(self.strides, tuple)
                 and len(self.shape) == len(self.strides) <= MAX_AXES and all(map(is_count, self.shape + self.strides)))
        if not whole:
            raise FormatError("a tensor must consist of a storage and non-negative integers (offset, shape, strides; at most 64 axes)")

    def span(self) -> Span:
        """Its place, for finding the tensors that are one; not equal to that of any tensor with other numbers."""
        kind = f"{self.dtype or ''}{'*' if self.conjugate else ''}{'-' if self.negate else ''}"
        return Span(f"{self.storage.key}{kind and ':'}{kind}", self.offset, self.shape, self.strides)

    def array(self) -> Array:
        """A read-only strided view of the storage; FormatError where it would leave it."""
        flat = self.storage.vector()
        if self.dtype is not None:
            if flat.nbytes % self.dtype.itemsize:
                raise FormatError(f"storage {self.storage.key!r} has {flat.nbytes} bytes, no multiple of the size of {self.dtype}")
            flat = flat.view(self.dtype)
        count = math.prod(self.shape)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if count and last >= len(flat):
            raise FormatError(f"a tensor of shape {self.shape}, strides {self.strides} and offset {self.offset} reaches element {last} "
                              f"of storage {self.storage.key!r}, which has {len(flat)}")
        if count > max(len(flat), MAX_EXPANDED):
            raise FormatError(f"a tensor of shape {self.shape} repeats {len(flat)} stored numbers {count} times in all; the limit is {MAX_EXPANDED}")
        if not count:
            return _empty(self.shape, flat.dtype)
        # an axis of length 1 may come with any stride, and a large one would overflow in bytes
        steps = [step * flat.itemsize if n > 1 else flat.itemsize for n, step in zip(self.shape, self.strides, strict=True)]
        view: Array = np.ndarray(self.shape, flat.dtype, flat.view(np.uint8).data, self.offset * flat.itemsize, steps)
        view = np.conj(view) if self.conjugate else view
        return np.negative(view) if self.negate else view


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    try:
        return np.empty(shape, dtype)
    except ValueError as error:
        raise FormatError(f"a tensor of shape {shape} is not usable: {error}") from None
