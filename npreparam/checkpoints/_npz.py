"""NumPy's .npz: a zip archive of one .npy array per name.

Source: NumPy, `numpy.lib.format`, sections "Format Version 1.0" to 3.0.
"""

from __future__ import annotations

import ast
import io
import json
import math
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from npreparam._errors import ArgumentError, DTypeError, FormatError
from npreparam.checkpoints._checkpoint import Checkpoint, PassedOver
from npreparam.checkpoints._dtypes import SMALL_FLOATS, Array, vector
from npreparam.checkpoints._storage import MAX_AXES, is_count
from npreparam.checkpoints._zip import Archive

METADATA = "__metadata__"  # our own member: the metadata as JSON text
MAX_HEADER = 10_000


def read(archive: Archive) -> Checkpoint:
    """The numeric arrays; arrays of objects (pickles) and text are passed over."""
    arrays, passed, metadata = {}, [], {}
    for member in archive.members:
        name = member.removesuffix(".npy")
        if name == member or name in arrays:
            raise FormatError(f"member {member[:80]!r} is no .npy array")
        data = archive.read(member)
        if name == METADATA:
            metadata = _metadata(data)
            continue
        array = _array(data, name)
        if array is None:
            passed.append(PassedOver(name, "an array of objects or text, which may hide a pickle"))
        else:
            arrays[name] = array
    return Checkpoint(arrays, "npz", metadata, tuple(passed))


def _array(data: memoryview, name: str) -> Array | None:
    """A view of a .npy file in memory; None for what is not plain numbers."""
    version, width = bytes(data[6:8]), 2 if data[6:7] == b"\1" else 4
    size = int.from_bytes(data[8 : 8 + width], "little")
    start = 8 + width + size
    if data[:6] != b"\x93NUMPY" or version not in (b"\1\0", b"\2\0", b"\3\0") or size > MAX_HEADER or start > len(data):
        raise FormatError(f"array {name[:80]!r} does not begin with the magic, version and header of .npy")
    try:
        header = ast.literal_eval(bytes(data[8 + width : start]).decode("utf-8" if version == b"\3\0" else "latin1").strip())
        code, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
        dtype = np.dtype(code) if isinstance(code, str) and len(code) < 8 else np.dtype(object)
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise FormatError(f"array {name[:80]!r} has an unreadable header: {str(error)[:80]}") from None
    if dtype.kind not in "biufc":
        return None
    body = data[start:]
    if not isinstance(shape, tuple) or not all(map(is_count, shape)) or len(shape) > MAX_AXES or type(fortran) is not bool:
        raise FormatError(f"array {name[:80]!r} has a header without a usable shape and order")
    if len(body) != math.prod(shape) * dtype.itemsize:
        raise FormatError(f"array {name[:80]!r} of shape {shape} and dtype {dtype} has {len(body)} bytes")
    try:
        array = vector(body, dtype, f"array {name[:80]!r}").reshape(shape, order="F" if fortran else "C")
    except ValueError as error:
        raise FormatError(f"array {name[:80]!r} of shape {shape} is not usable: {error}") from None
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def _metadata(data: memoryview) -> dict[str, Any]:
    text = _array(data, METADATA)
    try:
        metadata = json.loads(text.tobytes().decode()) if text is not None else None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"has a `{METADATA}` that is no JSON: {str(error)[:80]}") from None
    if not isinstance(metadata, dict):
        raise FormatError(f"has a `{METADATA}` that is no JSON object")
    return metadata


def write(file: BinaryIO, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """One uncompressed member per array."""
    for name, array in tensors.items():
        if array.dtype.kind not in "biufc" or array.dtype.name in SMALL_FLOATS:
            raise DTypeError(f"tensor {name!r} has dtype {array.dtype}, which .npy cannot tell from raw bytes; save it as .safetensors")
        if name == METADATA or name.startswith("/") or "\\" in name or ":" in name.split("/")[0] or ".." in name.split("/") or "\0" in name:
            raise ArgumentError(f"`tensors` has the name {name!r}, which cannot be a member of an archive; rename that tensor")
    text = np.frombuffer(json.dumps(dict(metadata)).encode(), np.uint8)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in (tensors | {METADATA: text} if metadata else tensors).items():
            content = io.BytesIO()
            np.lib.format.write_array_header_1_0(content, np.lib.format.header_data_from_array_1_0(array))
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                member.write(content.getvalue())
                member.write(array.tobytes("A"))
