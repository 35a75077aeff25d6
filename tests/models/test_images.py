"""Images by name and from npz files; every unusable file is one line that names it."""

import numpy as np
import pytest

from npreparam import FormatError
from npreparam.models import load_images
from tests.models.test_data import mnist, write

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 5, 4), dtype=np.uint8)


def saved(folder, **arrays):
    path = folder / "images.npz"
    np.savez(path, **arrays)
    return str(path)


def test_bytes_and_numbers_are_scaled_and_every_fifth_image_is_held_out(tmp_path):
    found = load_images(saved(tmp_path, x=PIXELS))
    assert found.name == "images.npz, 5x4"
    assert (found.test == PIXELS[::5, None] / np.float32(255)).all()
    assert found.train.shape == (9, 1, 5, 4)
    assert found.train.dtype == np.float32
    floats = load_images(saved(tmp_path, faces=PIXELS / 255))
    assert (floats.train == (PIXELS / 255).astype(np.float32)[np.arange(12) % 5 != 0][:, None]).all()
    two = load_images(saved(tmp_path, train=PIXELS[:8, None], test=PIXELS[8:, None]))
    assert (len(two.train), len(two.test)) == (8, 4)


def test_names(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    assert load_images("digits").train.shape == (1437, 1, 8, 8)
    (tmp_path / "mnist").mkdir()
    write(tmp_path / "mnist", mnist((6, 7), 40, 12))
    (tmp_path / "freyfaces").mkdir()
    np.savez(tmp_path / "freyfaces" / "frey_rawface.npz", x=PIXELS)
    assert load_images("mnist", tmp_path / "mnist").train.shape == (40, 1, 6, 7)
    assert load_images("frey", tmp_path / "freyfaces").train.shape == (9, 1, 5, 4)
    monkeypatch.setenv("NPREPARAM_DATA", str(tmp_path))
    assert load_images("mnist").test.shape == (12, 1, 6, 7)
    assert load_images("frey").name == "frey_rawface.npz, 5x4"
    monkeypatch.delenv("NPREPARAM_DATA")
    with pytest.raises(FormatError, match="set NPREPARAM_DATA to a folder that has mnist in it"):
        load_images("mnist")


BAD = {
    "labels": ({"x": np.arange(5)}, r"`x` has shape \(5,\) and dtype int64: labels, it seems; expected images"),
    "a matrix": ({"x": np.zeros((5, 4))}, r"`x` has shape \(5, 4\); expected images \(N, H, W\)"),
    "no pixels": ({"x": np.zeros((5, 0, 4))}, r"shape \(5, 0, 4\); expected images"),
    "NaN": ({"x": np.where(np.arange(60).reshape(3, 5, 4) == 7, np.nan, 0.5)}, "has 1 pixels that are NaN or infinite"),
    "beyond 1": ({"x": np.full((3, 5, 4), 7.0)}, r"lies in \[7, 7\]; expected \[0, 1\], or bytes"),
    "integers": ({"x": np.zeros((3, 5, 4), np.int32)}, "has dtype int32; expected uint8, or floats"),
    "text": ({"x": np.full((3, 5, 4), "a")}, "has dtype <U1"),
    "empty": ({"x": PIXELS[:0]}, "0 images to train with and 0 held out"),
    "one image": ({"x": PIXELS[:1]}, "0 images to train with and 1 held out"),
    "many arrays": ({"a": PIXELS, "b": PIXELS}, "holds a, b; expected `x`, or `train` and `test`, or a single array"),
    "two sizes": ({"train": PIXELS, "test": PIXELS[:, :4]}, "expected the same size"),
    "objects": ({"x": np.array([None, 1], object)}, "cannot be read as npz"),
}


@pytest.mark.parametrize("row", BAD)
def test_unusable_arrays(row, tmp_path):
    arrays, message = BAD[row]
    with pytest.raises(FormatError, match=message) as caught:
        load_images(saved(tmp_path, **arrays))
    assert str(caught.value).startswith(str(tmp_path / "images.npz"))
    assert "\n" not in str(caught.value)


def test_truncated_and_missing_files(tmp_path):
    path = saved(tmp_path, x=PIXELS)
    content = (tmp_path / "images.npz").read_bytes()
    for length in range(0, len(content), 29):
        (tmp_path / "images.npz").write_bytes(content[:length])
        with pytest.raises(FormatError, match="cannot be read as npz"):
            load_images(path)
    with pytest.raises(FormatError, match=r"cannot be read as npz: .*No such file"):
        load_images(str(tmp_path / "nothing.npz"))
    np.save(tmp_path / "one.npy", PIXELS)
    with pytest.raises(FormatError, match="cannot be read as npz"):
        load_images(str(tmp_path / "one.npy"))
