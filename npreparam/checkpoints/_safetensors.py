"""The safetensors format: a length, a JSON header, and the tensors' bytes without gaps.

Source: the safetensors README, section "Format". Read here rather than by its library: a file needs no extra, is mapped rather than copied,
and may hold bfloat16 and float8; the library is a witness in the tests.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, BinaryIO

from npreparam._errors import ArgumentError, DTypeError, FormatError
from npreparam.checkpoints._checkpoint import Checkpoint
from npreparam.checkpoints._dtypes import Array, dtype_of, vector
from npreparam.checkpoints._storage import MAX_AXES, is_count

MAX_HEADER = 100_000_000  # the format's own limit
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
          "F8_E8M0": "float8_e8m0fnu", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32",
          "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64"}
CODES = {name: code for code, name in DTYPES.items()}


def read(content: memoryview) -> Checkpoint:
    """The tensors of a file, in the header's order."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > min(len(content) - 8, MAX_HEADER):
        raise FormatError(f"announces a header of {size} bytes; {max(0, len(content) - 8)} follow, and {MAX_HEADER} is the limit")
    header = _header(bytes(content[8 : 8 + size]))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError("has a `__metadata__` that is not a mapping of text to text")
    data = content[8 + size :]
    places = {name: _place(name, record) for name, record in header.items()}
    end = 0
    for name in sorted(places, key=lambda name: places[name][2:]):
        start, stop = places[name][2:]
        if start != end:
            raise FormatError(f"tensor {name[:80]!r} begins at byte {start}, but the one before it ends at {end}")
        end = stop
    if end != len(data):
        raise FormatError(f"has {len(data)} bytes of data; its tensors take {end}")
    arrays = {}
    for name, (code, shape, start, stop) in places.items():
        values = vector(data[start:stop], dtype_of(DTYPES[code]), f"tensor {name[:80]!r}")
        try:
            arrays[name] = values.reshape(shape)
        except ValueError as error:
            raise FormatError(f"tensor {name[:80]!r} of shape {shape} is not usable: {error}") from None
    return Checkpoint(arrays, "safetensors", metadata)


def _header(text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            raise FormatError(f"has the key {twice[:80]!r} twice in its header")
        return result
    try:
        header = json.loads(text.decode(), object_pairs_hook=unique)
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise FormatError(f"has a header that is no JSON: {str(error)[:100]}") from None
    if not isinstance(header, dict):
        raise FormatError("has a header that is no JSON object")
    return header


def _place(name: str, record: Any) -> tuple[str, tuple[int, ...], int, int]:
    """dtype code, shape, and first and last byte of one tensor, which must agree."""
    if not isinstance(record, dict) or record.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"tensor {name[:80]!r} must have exactly dtype, shape and data_offsets")
    code, shape, offsets = record["dtype"], record["shape"], record["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise FormatError(f"tensor {name[:80]!r} has the dtype {str(code)[:20]!r}; known are {', '.join(DTYPES)}")
    if not isinstance(shape, list) or not all(map(is_count, shape)) or len(shape) > MAX_AXES:
        raise FormatError(f"tensor {name[:80]!r} has a shape that is not a list of non-negative integers")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_count, offsets)):
        raise FormatError(f"tensor {name[:80]!r} has data_offsets that are not two non-negative integers")
    start, stop = offsets
    if stop - start != math.prod(shape) * dtype_of(DTYPES[code]).itemsize:
        raise FormatError(f"tensor {name[:80]!r} of shape {tuple(shape)} and dtype {code} has {stop - start} bytes")
    return code, tuple(shape), start, stop


def write(file: BinaryIO, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Header in the given order, wide numbers first in the data, so that each is aligned to its size."""
    if "__metadata__" in tensors:
        raise ArgumentError("`tensors` has the name '__metadata__', which the format reserves; rename that tensor")
    for name, array in tensors.items():
        if array.dtype.name not in CODES:
            raise DTypeError(f"tensor {name!r} has dtype {array.dtype}, but safetensors holds {', '.join(CODES)}")
    begin, end = {}, 0
    layout = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)
    for name in layout:
        begin[name], end = end, end + tensors[name].nbytes
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    header |= {name: {"dtype": CODES[array.dtype.name], "shape": list(array.shape), "data_offsets": [begin[name], begin[name] + array.nbytes]}
               for name, array in tensors.items()}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in layout:
        array = tensors[name]
        file.write(array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).tobytes())
