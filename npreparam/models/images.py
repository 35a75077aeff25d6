"""Images without labels to train generative models on: by name, or from any npz file."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import FormatError
from npreparam.models.data import HELD_OUT, load_mnist, load_sklearn_digits

Array = NDArray[Any]
FOLDER = "NPREPARAM_DATA"  # environment variable: a folder with mnist/ and freyfaces/
FREY = Path("freyfaces") / "frey_rawface.npz"


class Images(NamedTuple):
    """Images NCHW in [0, 1], float32, for training and held out.

    >>> Images(np.zeros((4, 1, 2, 2), np.float32), np.zeros((1, 1, 2, 2), np.float32), "black").name
    'black'
    """

    train: Array
    test: Array
    name: str


def load_images(data: str, folder: str | Path | None = None) -> Images:
    """Images by name, "digits", "mnist" or "frey", or those of an npz file.

    MNIST's four IDX files are looked for in `folder`, Frey's faces in `folder` (the npz file itself, or its folder); without one, in mnist/ and
    freyfaces/ of the folder that the environment variable NPREPARAM_DATA names.

    Raises FormatError in one line for a missing, truncated or unusable file.

    >>> images = load_images("digits")
    >>> images.train.shape, images.name
    ((1437, 1, 8, 8), 'scikit-learn digits, 8x8')
    """
    if data == "digits":
        digits = load_sklearn_digits()
        return Images(digits.train_images, digits.test_images, digits.name)
    if data == "mnist":
        digits = load_mnist(folder or _default("mnist", "the folder of MNIST's four IDX files"))
        return Images(digits.train_images, digits.test_images, digits.name)
    if data == "frey":
        path = Path(folder) if folder else _default(str(FREY), "the file frey_rawface.npz")
        return load_npz(path / FREY.name if path.is_dir() else path)
    if Path(data).suffix != ".npz" and not Path(data).exists():
        raise FormatError(f"`data` (={data!r}) must be 'digits', 'mnist', 'frey' or an npz file, and no file is called so")
    return load_npz(data)


def _default(part: str, what: str) -> Path:
    base = os.environ.get(FOLDER)
    if not base:
        raise FormatError(f"{what} is not given; pass it as the folder, or set {FOLDER} to a folder that has {part} in it")
    return Path(base) / part


def load_npz(path: str | Path) -> Images:
    """Images from an npz file: arrays `train` and `test`, or one array `x` (or the only one) of which every fifth image is held out.

    Arrays are (N, H, W) or (N, channels, H, W), bytes or numbers in [0, 1].

    Raises FormatError that names the file, what was found and what was expected.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:  # np.load would not close a broken file itself
            arrays = dict(archive)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise FormatError(f"{path}: cannot be read as npz: {getattr(error, 'strerror', None) or error or type(error).__name__}") from None
    if {"train", "test"} <= set(arrays):
        train, test = (_checked(arrays[name], f"{path}: `{name}`") for name in ("train", "test"))
        if train.shape[1:] != test.shape[1:]:
            raise FormatError(f"{path}: `train` images are {train.shape[1:]}, `test` images {test.shape[1:]}; expected the same size")
    else:
        if "x" not in arrays and len(arrays) != 1:
            raise FormatError(f"{path}: holds {', '.join(arrays) or 'nothing'}; expected `x`, or `train` and `test`, or a single array")
        name = "x" if "x" in arrays else next(iter(arrays))
        images = _checked(arrays[name], f"{path}: `{name}`")
        held_out = np.arange(len(images)) % HELD_OUT == 0
        train, test = images[~held_out], images[held_out]
    if not len(train) or not len(test):
        raise FormatError(f"{path}: {len(train)} images to train with and {len(test)} held out; expected at least one of each")
    return Images(train, test, f"{path.name}, {'x'.join(map(str, train.shape[2:]))}")


def _checked(images: Array, where: str) -> Array:
    """Bytes or numbers in [0, 1] as float32 NCHW."""
    if images.ndim == 1 and images.dtype.kind in "iub":
        raise FormatError(f"{where} has shape {images.shape} and dtype {images.dtype}: labels, it seems; expected images (N, H, W) or (N, C, H, W)")
    if images.ndim not in (3, 4) or not all(images.shape[1:]):
        raise FormatError(f"{where} has shape {images.shape}; expected images (N, H, W) or (N, C, H, W)")
    if images.dtype == np.uint8:
        scaled = images / np.float32(255)
    elif images.dtype.kind == "f":
        scaled = images.astype(np.float32)
        if not np.isfinite(scaled).all():
            raise FormatError(f"{where} has {np.count_nonzero(~np.isfinite(scaled))} pixels that are NaN or infinite; expected numbers in [0, 1]")
        if scaled.size and not 0 <= scaled.min() <= scaled.max() <= 1:
            raise FormatError(f"{where} lies in [{scaled.min():g}, {scaled.max():g}]; expected [0, 1], or bytes")
    else:
        raise FormatError(f"{where} has dtype {images.dtype}; expected uint8, or floats in [0, 1]")
    return scaled if images.ndim == 4 else scaled[:, None]
