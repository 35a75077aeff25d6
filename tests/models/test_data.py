"""Real digits, and IDX files good, truncated and corrupt."""

import gzip
import struct
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import FormatError
from npreparam.models import load_mnist, load_sklearn_digits, read_idx


def idx(array, kind=8):
    """The bytes of an IDX file, as its format is defined: 0, 0, type, number of axes, lengths as big-endian int32, data."""
    return bytes([0, 0, kind, array.ndim]) + b"".join(struct.pack(">i", n) for n in array.shape) + array.astype(np.uint8).tobytes()


def mnist(size=(5, 4), train=6, held_out=3):
    rng = np.random.default_rng(0)
    files = {}
    for part, count in (("train", train), ("t10k", held_out)):
        files[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (count, *size)))
        files[f"{part}-labels-idx1-ubyte"] = idx(rng.integers(0, 10, count))
    return files


def write(folder, files):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_digits_of_scikit_learn():
    pytest.importorskip("sklearn")
    digits, again = load_sklearn_digits(), load_sklearn_digits()
    assert digits.train_images.shape == (1437, 1, 8, 8)
    assert digits.test_images.shape == (360, 1, 8, 8)
    for images in (digits.train_images, digits.test_images):
        assert images.dtype == np.float32
        assert images.min() == 0
        assert images.max() == 1
    assert (np.unique(digits.test_labels) == np.arange(10)).all()
    assert (digits.test_images == again.test_images).all()
    rows = {image.tobytes() for image in digits.train_images}
    assert not any(image.tobytes() in rows for image in digits.test_images)  # nothing held out is trained on


def test_missing_scikit_learn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError) as caught:
        load_sklearn_digits()
    assert str(caught.value) == "the bundled digits need scikit-learn: pip install 'npreparam[data]'"


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0,), (0, 5, 5), (2, 1, 3, 2)])
@pytest.mark.parametrize("compress", [False, True])
def test_read_idx(tmp_path, shape, compress):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(idx(array)) if compress else idx(array))
    assert (read_idx(path) == array).all()
    assert read_idx(path).shape == shape


GOOD = idx(np.arange(24).reshape(2, 3, 4))
BAD = {
    "empty": (b"", "begins with nothing; expected 000008"),
    "three bytes": (GOOD[:3], "begins with 000008; expected 000008 .* and the number of axes"),
    "another magic": (b"PK\3\4" + GOOD[4:], "begins with 504b0304"),
    "floats": (idx(np.zeros(3), kind=13), "begins with 00000d01; expected 000008"),
    "no axes": (bytes([0, 0, 8, 0]), "4 bytes for a header of 0 axes; expected at least 8"),
    "half a header": (GOOD[:10], "10 bytes for a header of 3 axes; expected at least 16"),
    "truncated data": (GOOD[:-1], r"23 bytes of data for shape \(2, 3, 4\); expected 24"),
    "trailing byte": (GOOD + b"\0", r"25 bytes of data for shape \(2, 3, 4\); expected 24"),
    "enormous shape": (bytes([0, 0, 8, 3]) + b"\xff" * 12, r"0 bytes of data for shape \(4294967295, 4294967295, 4294967295\)"),
    "empty, but too many axes": (bytes([0, 0, 8, 65]) + bytes(260), "is not usable"),
    "truncated gzip": (gzip.compress(GOOD)[:-9], "cannot be read: Compressed file ended"),
    "corrupt gzip": (gzip.compress(GOOD)[:-8] + bytes(8), "cannot be read: CRC check failed"),
    "gzip in name only": (b"\x1f\x8b", "cannot be read"),
}


@pytest.mark.parametrize("row", BAD)
def test_bad_files_are_named_with_what_was_found(tmp_path, row):
    content, message = BAD[row]
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        read_idx(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["absent", "."])
def test_what_is_no_file(tmp_path, name):
    with pytest.raises(FormatError, match="cannot be read"):
        read_idx(tmp_path / name)


@given(content=st.sampled_from([GOOD, gzip.compress(GOOD, mtime=0)]), data=st.data())
def test_damaged_files_raise_format_error_or_read_validly(tmp_path_factory, content, data):
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(0, 3), "flips")):
        damaged[data.draw(st.integers(0, len(damaged) - 1), "at")] ^= data.draw(st.integers(1, 255), "by")
    damaged = damaged[: data.draw(st.integers(0, len(damaged)), "length")]
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(damaged)
    try:
        array = read_idx(path)
    except FormatError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert array.dtype == np.uint8
        if bytes(damaged) == content:
            assert (array.ravel() == np.arange(24)).all()


def test_every_truncation_is_refused(tmp_path):
    for content in (GOOD, gzip.compress(GOOD)):
        for length in range(len(content)):
            path = tmp_path / "file"
            path.write_bytes(content[:length])
            with pytest.raises(FormatError):
                read_idx(path)


@pytest.mark.parametrize("style", ["plain", "gz", "dotted", "dotted gz"])
def test_load_mnist_under_every_usual_name(tmp_path, style):
    files = mnist()
    expected = np.frombuffer(files["train-images-idx3-ubyte"], np.uint8, offset=16).reshape(6, 1, 5, 4)
    if "dotted" in style:
        files = {name.replace("-idx", ".idx"): content for name, content in files.items()}
    if "gz" in style:
        files = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    digits = load_mnist(write(tmp_path, files))
    assert digits.name == "MNIST, 5x4"
    assert digits.train_images.dtype == digits.test_images.dtype == np.float32
    assert (digits.train_images == expected.astype(np.float32) / np.float32(255)).all()
    assert digits.test_images.shape == (3, 1, 5, 4)
    assert digits.train_labels.dtype == np.int64
    assert digits.train_labels.shape == (6,)


def test_a_missing_file_lists_the_accepted_names(tmp_path):
    files = mnist()
    del files["t10k-labels-idx1-ubyte"]
    with pytest.raises(FormatError) as caught:
        load_mnist(write(tmp_path, files))
    names = ("t10k-labels-idx1-ubyte", "t10k-labels-idx1-ubyte.gz", "t10k-labels.idx1-ubyte", "t10k-labels.idx1-ubyte.gz")
    assert str(caught.value) == f"{tmp_path}: no t10k labels; looked for {', '.join(names)}"


MISFITS = {
    "counts": ({"train-labels-idx1-ubyte": idx(np.zeros(5))}, r"train images have shape \(6, 5, 4\) and labels \(5,\)"),
    "images and labels swapped": ({"t10k-labels-idx1-ubyte": mnist()["t10k-images-idx3-ubyte"]}, r"labels \(3, 5, 4\)"),
    "a label of 10": ({"train-labels-idx1-ubyte": idx(np.full(6, 10))}, "a train label is 10; expected digits 0 to 9"),
    "no images": ({"t10k-images-idx3-ubyte": idx(np.zeros((0, 5, 4))), "t10k-labels-idx1-ubyte": idx(np.zeros(0))},
                  r"t10k images have shape \(0,"),
    "sizes": ({"t10k-images-idx3-ubyte": idx(np.zeros((3, 5, 5)))}, r"train images are \(5, 4\), t10k images \(5, 5\)"),
}


@pytest.mark.parametrize("row", MISFITS)
def test_files_that_do_not_fit_each_other(tmp_path, row):
    changes, message = MISFITS[row]
    with pytest.raises(FormatError, match=message):
        load_mnist(write(tmp_path, mnist() | changes))
