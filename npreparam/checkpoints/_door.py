"""One door for reading and one for writing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from npreparam._errors import ArgumentError, FormatError
from npreparam.checkpoints import _npz, _onnx, _safetensors, _torch
from npreparam.checkpoints._checkpoint import Checkpoint
from npreparam.checkpoints._dtypes import Array
from npreparam.checkpoints._files import contents, told_of, written
from npreparam.checkpoints._tree import checkpoint_of
from npreparam.checkpoints._unpickle import Unpickler
from npreparam.checkpoints._zip import Archive

WRITERS = {".safetensors": _safetensors.write, ".npz": _npz.write}


def load(path: str | os.PathLike[str], entry: str | None = None) -> Checkpoint:
    """The tensors of a checkpoint file, read without the framework that wrote it and without executing anything in it.

    The content decides which format it is: safetensors; PyTorch's zip archive, its older format, and plain pickles of NumPy arrays; .npz;
    ONNX (by its ending, for it has no magic number). Pickled files may hold several sets of weights: `entry` names one (dotted; "" for
    everything), else the first of params_ema, ema, ..., state_dict, ..., model, params is taken; the others are told in `passed_over`.

    The arrays have the file's dtypes (bfloat16 and float8 through ml_dtypes), are read-only, and share memory with the mapped file where
    its bytes allow it; the file must not be cut short while they are used.

    Rounding: none.

    Raises FormatError, one line that begins with the path; ImportError where an extra is missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/w.safetensors", {"conv.weight": np.ones((1, 1, 3, 3), np.float32)}, {"epoch": "3"})
    ...     checkpoint = load(f"{folder}/w.safetensors")
    >>> checkpoint["conv.weight"].shape, checkpoint.metadata
    ((1, 1, 3, 3), {'epoch': '3'})
    """
    path = Path(path)
    with told_of(path):
        return _read(contents(path), path.suffix.lower(), entry)


def _read(content: memoryview, suffix: str, entry: str | None) -> Checkpoint:
    start = bytes(content[:16])
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        archive = Archive(content)
        if any(name.endswith("data.pkl") for name in archive.members):
            return _torch.read_zip(archive, entry)
        checkpoint = _npz.read(archive)
    elif start.startswith(_torch.LEGACY_START):
        return _torch.read_legacy(content, entry)
    elif suffix == ".onnx":
        checkpoint = _onnx.read(content)
    elif start[4:9] == b"\0\0\0\0{" or suffix == ".safetensors":  # a header of less than 4 GiB, which may begin like a pickle
        checkpoint = _safetensors.read(content)
    elif start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return _read_pickle(content, entry)
    else:
        raise FormatError(f"begins with {start.hex()}, which is neither safetensors, PyTorch, npz nor (by its name) ONNX{_hint(content)}")
    if entry:
        raise FormatError(f"`entry` (={entry!r}) picks among the sets of weights in a pickled file, but this is {checkpoint.format}; leave it out")
    return checkpoint


def _hint(content: memoryview) -> str:
    if content[257:262] == b"ustar":
        return "; it is a tar archive: unpack it, or if PyTorch before 0.1.10 wrote it, load it there and save it again"
    return {b"\x1f\x8b": "; it is gzipped: unpack it first", b"\x93N": "; it is one array: save it with numpy.savez"}.get(bytes(content[:2]), "")


def _read_pickle(content: memoryview, entry: str | None) -> Checkpoint:
    """One pickle of NumPy arrays, as PaddlePaddle writes its parameters."""
    unpickler = Unpickler(content)
    tree = unpickler.load()
    if unpickler.position != len(content):
        raise FormatError(f"goes on for {len(content) - unpickler.position} bytes after its pickle")
    return checkpoint_of(tree, unpickler.foreign, "pickle", entry)


def save(path: str | os.PathLike[str], tensors: Mapping[str, ArrayLike], metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors as .safetensors or .npz, whole or not at all: a temporary file replaces `path` at the end.

    Any shapes; numbers of any dtype the format knows (bfloat16, float8: safetensors only). The names' order is kept.

    Rounding: none.

    Raises ArgumentError (ending, names, metadata), DTypeError, OSError.

    >>> save("weights.pth", {})
    Traceback (most recent call last):
    npreparam._errors.ArgumentError: `path` (='weights.pth') must end in .safetensors or .npz, the formats that are written
    """
    path = Path(path)
    if path.suffix.lower() not in WRITERS:
        raise ArgumentError(f"`path` (={str(path)!r}) must end in {' or '.join(WRITERS)}, the formats that are written")
    arrays = _named(tensors)
    metadata = dict(metadata or {})
    for key, value in metadata.items():
        if not _is_text(key) or not _is_text(value):
            raise ArgumentError(f"`metadata` has {key!r}: {value!r}, but must map text to text; convert it with str or json.dumps")
    with written(path) as file:
        WRITERS[path.suffix.lower()](file, arrays, metadata)


def _named(tensors: Any) -> dict[str, Array]:
    if not isinstance(tensors, Mapping):
        raise ArgumentError(f"`tensors` (a {type(tensors).__name__}) must be a mapping of names to arrays")
    for name in tensors:
        if not _is_text(name) or not name:
            raise ArgumentError(f"`tensors` has the name {name!r}, but names must be text that is not empty")
    return {name: np.asarray(value) for name, value in tensors.items()}


def _is_text(value: Any) -> bool:
    """Text that has an encoding (lone surrogates have none)."""
    return isinstance(value, str) and value.encode(errors="replace").decode() == value
