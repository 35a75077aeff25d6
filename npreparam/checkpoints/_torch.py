"""PyTorch's two file formats: a zip archive with a pickle and one member per storage, and the older run of pickles and storages.

Source: PyTorch, torch/serialization.py, `_save`, `_legacy_save` (read for the layout; nothing of it is called).
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from npreparam._errors import FormatError
from npreparam.checkpoints._checkpoint import Checkpoint
from npreparam.checkpoints._dtypes import Array, dtype_of, vector
from npreparam.checkpoints._pickle_globals import Named, Placeholder
from npreparam.checkpoints._storage import STORAGES, Storage, is_count
from npreparam.checkpoints._tree import checkpoint_of
from npreparam.checkpoints._unpickle import Unpickler
from npreparam.checkpoints._zip import Archive

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
LEGACY_START = b"\x80\x02\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little")


class Storages:
    """The storages of one file by key, as the pickle's persistent ids name them."""

    def __init__(self) -> None:
        self.known: dict[str, Storage] = {}
        self.untyped = False  # some storage is mere bytes, whose byte order cannot be changed

    def __call__(self, identifier: Any) -> Storage | Placeholder:
        """('storage', type, key, device, size[, view]) of a tensor, or ('module', class, file, source) of a pickled network."""
        if isinstance(identifier, tuple) and len(identifier) == 4 and identifier[0] == "module" and isinstance(identifier[1], Named):
            return Placeholder(identifier[1].name)  # type: ignore[return-value]
        if not isinstance(identifier, tuple) or len(identifier) not in (5, 6) or identifier[0] not in ("storage", b"storage"):
            raise FormatError("a persistent id is not ('storage', type, key, device, size)")
        _, kind, key, _, size, *view = identifier
        if not isinstance(kind, Named) or kind.name not in STORAGES or not isinstance(key, str) or not is_count(size):
            raise FormatError("a storage is described by something else than a storage type, a key and a size")
        storage = self.known.setdefault(key, Storage(key, dtype_of(STORAGES[kind.name]), size))
        if storage.dtype != dtype_of(STORAGES[kind.name]) or storage.size != size:
            raise FormatError(f"storage {key[:80]!r} is described in two ways")
        if view and view[0] is not None:
            raise FormatError(f"storage {key[:80]!r} is stored in parts, as before PyTorch 0.4; load it there and save it again")
        self.untyped |= "Untyped" in kind.name
        return storage


def read_zip(archive: Archive, entry: str | None) -> Checkpoint:
    """A file of torch.save since PyTorch 1.6."""
    pickles = [name for name in archive.members if name.endswith("data.pkl") and name.count("/") <= 1]
    if len(pickles) != 1:
        raise FormatError(f"has {len(pickles)} members that are named data.pkl; expected one")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in archive.members:
        raise FormatError("is a TorchScript program, not a state dict; save model.state_dict() instead")
    order = bytes(archive.read(f"{root}byteorder")) if f"{root}byteorder" in archive.members else b"little"
    if order not in (b"little", b"big"):
        raise FormatError(f"has the byte order {order[:20]!r}; expected little or big")
    storages = Storages()
    unpickler = Unpickler(archive.read(pickles[0]), persistent=storages)
    tree = unpickler.load()
    if storages.untyped and order.decode() != sys.byteorder:
        raise FormatError(f"holds {order.decode()}-endian numbers as mere bytes; save it again on a {sys.byteorder}-endian machine")
    for key, storage in storages.known.items():
        name = f"{root}data/{key}"
        if name in archive.members:
            storage.flat = _numbers(archive.read(name), storage.dtype, f"member {name!r}", order == b"big")
    return checkpoint_of(tree, unpickler.foreign, "PyTorch zip", entry)


def read_legacy(content: memoryview, entry: str | None) -> Checkpoint:
    """A file of torch.save before PyTorch 1.6 (or with _use_new_zipfile_serialization=False): five pickles, then the storages."""
    storages = Storages()
    unpickler = Unpickler(content, persistent=storages)
    magic, version, system = unpickler.load(), unpickler.load(), unpickler.load()
    if magic != LEGACY_MAGIC or version != LEGACY_VERSION or not isinstance(system, dict):
        raise FormatError("does not begin with PyTorch's magic number, version 1001 and system record")
    tree, keys = unpickler.load(), unpickler.load()
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages.known) or not all(isinstance(key, str) for key in keys):
        raise FormatError("the list of storages is not that of the storages used")
    position, big = unpickler.position, system.get("little_endian") is False
    for key in keys:
        storage = storages.known[key]
        size = int.from_bytes(content[position : position + 8], "big" if big else "little")
        end = position + 8 + size * storage.dtype.itemsize
        if size != storage.size or end > len(content):
            raise FormatError(f"storage {key[:80]!r} has {size} elements at byte {position}; {storage.size} were announced, "
                              f"and {len(content) - position} bytes are left")
        storage.flat = _numbers(content[position + 8 : end], storage.dtype, f"storage {key!r}", big)
        position = end
    if position != len(content):
        raise FormatError(f"goes on for {len(content) - position} bytes after its last storage")
    return checkpoint_of(tree, unpickler.foreign, "PyTorch before 1.6", entry)


def _numbers(data: memoryview, dtype: np.dtype[Any], what: str, big: bool) -> Array:
    if big == (sys.byteorder == "big"):
        return vector(data, dtype, what)
    return vector(data, dtype, what).byteswap()
