"""Real images: scikit-learn's 8x8 digits, and MNIST's four IDX files."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import FormatError

Array = NDArray[Any]
CLASSES = 10
HELD_OUT = 5  # one image of this many is held out of the bundled digits


class Digits(NamedTuple):
    """Images NCHW in [0, 1], float32, and labels, for training and held out.

    >>> Digits._fields
    ('train_images', 'train_labels', 'test_images', 'test_labels', 'name')
    """

    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array
    name: str


def load_sklearn_digits() -> Digits:
    """The 1797 handwritten 8x8 digits that scikit-learn bundles; every fifth is held out.

    Source: Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI Machine Learning Repository, 1998 (its test part).

    >>> digits = load_sklearn_digits()
    >>> digits.train_images.shape, digits.test_images.shape
    ((1437, 1, 8, 8), (360, 1, 8, 8))
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("the bundled digits need scikit-learn: pip install 'npreparam[data]'") from None
    bundle = load_digits()
    images = (bundle.images / 16.0).astype(np.float32)[:, None]
    labels = bundle.target.astype(np.int64)
    held_out = np.arange(len(labels)) % HELD_OUT == 0
    return Digits(images[~held_out], labels[~held_out], images[held_out], labels[held_out], "scikit-learn digits, 8x8")


def load_mnist(folder: str | Path) -> Digits:
    """MNIST from the four IDX files in a folder, gzipped or not.

    Raises FormatError for a missing, corrupt or truncated file, or counts that differ.

    Source: LeCun, Cortes and Burges, The MNIST database of handwritten digits, section "file formats".

    >>> import tempfile
    >>> def idx(*shape):
    ...     return struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape) + bytes(math.prod(shape))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part, count in (("train", 3), ("t10k", 1)):
    ...         _ = Path(folder, f"{part}-images-idx3-ubyte").write_bytes(idx(count, 28, 28))
    ...         _ = Path(folder, f"{part}-labels-idx1-ubyte").write_bytes(idx(count))
    ...     digits = load_mnist(folder)
    >>> digits.train_images.shape, digits.test_labels.shape, digits.name
    ((3, 1, 28, 28), (1,), 'MNIST, 28x28')
    """
    folder = Path(folder)
    parts: list[Array] = []
    for part in ("train", "t10k"):
        images, labels = read_idx(_find(folder, part, "images", 3)), read_idx(_find(folder, part, "labels", 1))
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not images.size:
            raise FormatError(f"{folder}: {part} images have shape {images.shape} and labels {labels.shape}; "
                              "expected (count, height, width) and (count,)")
        if labels.max() >= CLASSES:
            raise FormatError(f"{folder}: a {part} label is {labels.max()}; expected digits 0 to 9")
        parts += [(images / np.float32(255))[:, None].astype(np.float32), labels.astype(np.int64)]
    if parts[0].shape[1:] != parts[2].shape[1:]:
        raise FormatError(f"{folder}: train images are {parts[0].shape[2:]}, t10k images {parts[2].shape[2:]}; expected the same size")
    return Digits(parts[0], parts[1], parts[2], parts[3], f"MNIST, {parts[0].shape[2]}x{parts[0].shape[3]}")


def _find(folder: Path, part: str, kind: str, rank: int) -> Path:
    names = [f"{part}-{kind}{separator}idx{rank}-ubyte{ending}" for separator in "-." for ending in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FormatError(f"{folder}: no {part} {kind}; looked for {', '.join(names)}")


def read_idx(path: str | Path) -> Array:
    """The array of one IDX file of unsigned bytes, gzipped or not.

    Raises FormatError that names the file, what was found and what was expected.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9])), file.flush()
    ...     print(read_idx(file.name))
    [7 9]
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"{path}: cannot be read: {error}") from None
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise FormatError(f"{path}: begins with {content[:4].hex() or 'nothing'}; "
                          "expected 000008 (IDX of unsigned bytes) and the number of axes")
    rank = content[3]
    start = 4 + 4 * rank
    if rank == 0 or len(content) < start:
        raise FormatError(f"{path}: {len(content)} bytes for a header of {rank} axes; expected at least {max(8, start)}")
    shape = struct.unpack(f">{rank}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise FormatError(f"{path}: {len(content) - start} bytes of data for shape {shape}; expected {math.prod(shape)}")
    try:
        return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
    except ValueError as error:
        raise FormatError(f"{path}: shape {shape} of the header is not usable: {error}") from None
