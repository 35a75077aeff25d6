"""safetensors, npz, ONNX, archives in general, and the door that tells the formats apart."""

import os
import struct
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npreparam import FormatError
from npreparam._errors import ArgumentError, DTypeError
from npreparam.checkpoints import load, save
from tests.checkpoints.build import DATA, NUMBERS, archive, legacy, npy, numpy_pickle, safetensors, seeds, zipped


def read(tmp_path, content, ending):
    path = tmp_path / f"model{ending}"
    path.write_bytes(content)
    return load(path)


def record(dtype="F32", shape=(2, 3), offsets=(0, 24), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


ARRAYS = hnp.arrays(st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.uint16, np.int64, np.bool_, np.complex64]),
                    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\\:/"), min_size=1, max_size=8).filter(lambda name: name != "..")


@pytest.mark.parametrize("ending", [".safetensors", ".npz"])
@given(tensors=st.dictionaries(NAMES, ARRAYS, max_size=4), metadata=st.dictionaries(NAMES, NAMES, max_size=2))
def test_what_is_written_is_read(tmp_path_factory, ending, tensors, metadata):
    path = tmp_path_factory.mktemp("again") / f"model{ending}"
    save(path, tensors, metadata)
    again = load(path)
    assert list(again) == list(tensors)
    assert again.metadata == metadata
    for key, array in tensors.items():
        assert again[key].dtype == array.dtype
        assert again[key].shape == array.shape
        assert again[key].tobytes() == array.tobytes()
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"])
def test_small_floats(tmp_path, kind):
    dtype = getattr(pytest.importorskip("ml_dtypes"), kind)
    array = np.arange(256, dtype=np.uint8).view(dtype)
    save(tmp_path / "w.safetensors", {"w": array})
    again = load(tmp_path / "w.safetensors")["w"]
    assert again.dtype == array.dtype
    assert again.tobytes() == array.tobytes()
    with pytest.raises(DTypeError, match=r"which .npy cannot tell from raw bytes; save it as .safetensors"):
        save(tmp_path / "w.npz", {"w": array})


def test_missing_ml_dtypes_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match=r"bfloat16 tensors need ml_dtypes: pip install 'npreparam\[checkpoints\]'"):
        read(tmp_path, safetensors({"w": record("BF16", (12,))}), ".safetensors")


def test_both_ways_with_the_safetensors_library(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    tensors = {"b": rng.integers(0, 9, 5).astype(np.int8), "w": rng.standard_normal((2, 3)), "e": np.zeros((0, 2), np.float32),
               "t": np.asfortranarray(rng.standard_normal((3, 4)).astype(np.float32)), "s": np.float16(2.5), "flag": np.array([True, False])}
    save(tmp_path / "ours.safetensors", tensors, {"k": "v"})
    theirs = library.load_file(tmp_path / "ours.safetensors")
    assert theirs.keys() == tensors.keys()
    library.save_file({key: np.ascontiguousarray(value) for key, value in tensors.items() if key != "s"}, tmp_path / "theirs.safetensors")
    ours = load(tmp_path / "theirs.safetensors")
    for key, value in tensors.items():
        assert (theirs[key] == value).all()
        assert key == "s" or (ours[key] == value).all()


BAD_NPZ = {
    "a member that is no array": ({"w.txt": b"hello"}, "member 'w.txt' is no .npy array"),
    "no magic": ({"w.npy": b"hello"}, "does not begin with the magic"),
    "a header beyond the end": ({"w.npy": b"\x93NUMPY\1\0\xff\x20{}"}, "does not begin with the magic, version and header"),
    "version 9": ({"w.npy": b"\x93NUMPY\x09\0\2\0{}"}, "magic, version"),
    "a header that is no literal": ({"w.npy": b"\x93NUMPY\1\0\x0b\0__import__('os')"}, "has an unreadable header"),
    "a header without a shape": ({"w.npy": b"\x93NUMPY\1\0\x10\0{'descr': '<f4'}"}, "unreadable header: 'fortran_order'"),
    "truncated data": ({"w.npy": npy(NUMBERS)[:-1]}, r"array 'w' of shape \(6,\) and dtype float32 has 23 bytes"),
    "more data": ({"w.npy": npy(NUMBERS) + b"x"}, "has 25 bytes"),
    "a negative length": ({"w.npy": npy(NUMBERS).replace(b"(6,)", b"(-6)")}, "without a usable shape"),
    "a path upwards": ({"../w.npy": npy(NUMBERS)}, "has a path outside the archive"),
    "an absolute path": ({"/w.npy": npy(NUMBERS)}, "has a path outside the archive"),
    "a Windows path": ({"C:w.npy": npy(NUMBERS)}, "has a path outside the archive"),
    "metadata that are no JSON": ({"__metadata__.npy": npy(NUMBERS)}, "that is no JSON"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_bad_npz(tmp_path, case):
    members, message = BAD_NPZ[case]
    with pytest.raises(FormatError, match=message):
        read(tmp_path, zipped(members), ".npz")


def test_npz_of_numpy(tmp_path):
    arrays = {"w": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6).reshape(2, 3)), "big": np.arange(3, dtype=">f4"),
              "layer/bias": np.float32(2)}
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "w.npz", **arrays)
        ours = load(tmp_path / "w.npz")
        assert list(ours) == list(arrays)
        for key, value in arrays.items():
            assert (ours[key] == value).all()
            assert ours[key].dtype.isnative


def test_arrays_of_objects_in_npz_are_passed_over(tmp_path):
    """They are pickles, which NumPy would execute with allow_pickle=True."""
    checkpoint = read(tmp_path, zipped({"w.npy": npy(NUMBERS), "o.npy": npy(np.array([{}], object)), "s.npy": npy(np.array(["text"]))}), ".npz")
    assert list(checkpoint) == ["w"]
    assert [passed.name for passed in checkpoint.passed_over] == ["o", "s"]


def test_members_that_occur_twice(tmp_path):
    content = zipped({"v.npy": npy(NUMBERS), "w.npy": npy(NUMBERS)})
    (tmp_path / "w.npz").write_bytes(content.replace(b"v.npy", b"w.npy"))
    with pytest.raises(FormatError, match=r"member 'w.npy' occurs twice"):
        load(tmp_path / "w.npz")


def test_zip_bombs(tmp_path):
    """Zeros compress a thousandfold; so do the sizes that a member only announces."""
    content = zipped({"w.npy": npy(np.zeros(10**7))}, zipfile.ZIP_DEFLATED)
    with pytest.raises(FormatError, match=r"expands from .* to 80000128 bytes, as zip bombs do"):
        read(tmp_path, content, ".npz")
    small = zipped({"w.npy": npy(np.zeros(1000))}, zipfile.ZIP_DEFLATED)
    at = small.rindex(b"PK\1\2") + 24
    for announced in (8127, 8129, 10**6):
        lying = small[:at] + struct.pack("<I", announced) + small[at + 4 :]
        with pytest.raises(FormatError, match=f"{announced} were announced"):
            read(tmp_path, lying, ".npz")


def test_overlapping_members(tmp_path):
    """A second directory entry for the same bytes, as in bombs that do not nest."""
    content = bytearray(zipped({"a.npy": npy(NUMBERS), "b.npy": npy(NUMBERS)}))
    second = content.rindex(b"PK\1\2")
    content[second + 42 : second + 46] = struct.pack("<I", 0)
    with pytest.raises(FormatError, match=r"overlaps the one before it|has another name at its own place"):
        read(tmp_path, bytes(content), ".npz")


@pytest.mark.parametrize(("at", "value", "message"), [(8, 1, "is encrypted"), (10, 12, "is compressed by method 12"),
                                                      (42, 1, "does not begin where")])
def test_odd_directory_entries(tmp_path, at, value, message):
    content = bytearray(zipped({"a.npy": npy(NUMBERS)}))
    content[content.rindex(b"PK\1\2") + at] = value
    with pytest.raises(FormatError, match=message):
        read(tmp_path, bytes(content), ".npz")


@pytest.mark.parametrize("seed", seeds())
def test_every_truncation_of_every_format_is_refused(tmp_path, seed):
    content = seeds()[seed]
    for length in range(len(content)):
        with pytest.raises(FormatError):
            read(tmp_path, content[:length], seed[seed.index(".") :])


WRONG = {
    "nothing": (b"", ".pth", "the file is empty"),
    "zeros": (bytes(100), ".pth", "begins with 0{32}, which is neither safetensors, PyTorch, npz nor"),
    "gzip": (b"\x1f\x8b" + bytes(50), ".pth", "it is gzipped: unpack it first"),
    "one array": (npy(NUMBERS), ".npy", "it is one array: save it with numpy.savez"),
    "tar": (bytes(257) + b"ustar" + bytes(250), ".tar", "it is a tar archive"),
    "an archive of something else": (zipped({"word/document.xml": b"<xml>"}), ".pth", "is no .npy array"),
    "an archive in name": (b"PK\3\4" + bytes(100), ".pth", "is no usable zip archive"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files(tmp_path, case):
    content, ending, message = WRONG[case]
    with pytest.raises(FormatError, match=message):
        read(tmp_path, content, ending)


def test_what_is_no_file(tmp_path):
    with pytest.raises(FormatError, match="cannot be read"):
        load(tmp_path / "absent.pth")
    with pytest.raises(FormatError, match="not a regular file"):
        load(tmp_path)
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(FormatError, match="not a regular file"):
        load(tmp_path / "pipe.pth")


@pytest.mark.parametrize(("content", "name"), [(archive(), "PyTorch zip"), (legacy(), "PyTorch before 1.6"), (safetensors(), "safetensors"),
                                               (zipped({"w.npy": npy(NUMBERS)}), "npz"), (numpy_pickle(), "pickle")])
def test_the_content_decides_not_the_ending(tmp_path, content, name):
    assert read(tmp_path, content, ".bin").format == name


@pytest.mark.parametrize("size", [0x280, 0x480])
def test_a_header_whose_length_looks_like_a_pickle(tmp_path, size):
    header = b'{"w":{"dtype":"F32","shape":[6],"data_offsets":[0,24]}}'.ljust(size)
    content = safetensors(header)
    assert content[:2] in (b"\x80\2", b"\x80\4")
    assert read(tmp_path, content, ".bin").format == "safetensors"


def test_entry_is_for_pickled_files(tmp_path):
    save(tmp_path / "w.npz", {"w": NUMBERS})
    with pytest.raises(FormatError, match="picks among the sets of weights in a pickled file, but this is npz"):
        load(tmp_path / "w.npz", entry="model")


def test_a_file_may_be_replaced_by_what_was_read_from_it(tmp_path):
    path = tmp_path / "w.safetensors"
    save(path, {"w": NUMBERS})
    checkpoint = load(path)
    save(path, {"w": checkpoint["w"], "v": checkpoint["w"]})
    assert checkpoint["w"].tolist() == load(path)["v"].tolist() == NUMBERS.tolist()


UNSAVABLE = {
    "ending": (("w.pth", {}), ArgumentError, "must end in .safetensors or .npz"),
    "no mapping": (("w.npz", [1]), ArgumentError, r"`tensors` \(a list\) must be a mapping"),
    "a number as a name": (("w.npz", {3: NUMBERS}), ArgumentError, "has the name 3"),
    "an empty name": (("w.npz", {"": NUMBERS}), ArgumentError, "not empty"),
    "a lone surrogate": (("w.npz", {"\ud800": NUMBERS}), ArgumentError, "must be text"),
    "a path as a name": (("w.npz", {"../w": NUMBERS}), ArgumentError, "cannot be a member of an archive"),
    "the reserved name": (("w.safetensors", {"__metadata__": NUMBERS}), ArgumentError, "which the format reserves"),
    "the reserved name of npz": (("w.npz", {"__metadata__": NUMBERS}), ArgumentError, "cannot be a member"),
    "objects": (("w.safetensors", {"w": np.array([{}])}), DTypeError, "has dtype object"),
    "text": (("w.npz", {"w": np.array(["a"])}), DTypeError, "has dtype <U1"),
    "metadata": (("w.npz", {"w": NUMBERS}, {"epoch": 3}), ArgumentError, "must map text to text"),
}


@pytest.mark.parametrize("case", UNSAVABLE)
def test_what_cannot_be_saved(tmp_path, case):
    (name, *arguments), kind, message = UNSAVABLE[case]
    with pytest.raises(kind, match=message):
        save(tmp_path / name, *arguments)
    assert os.listdir(tmp_path) == []


def test_onnx_by_hand(tmp_path):
    onnx = pytest.importorskip("onnx")
    small = onnx.helper.make_tensor("half", onnx.TensorProto.BFLOAT16, [2], [1.0, 2.0])
    outside = onnx.TensorProto(name="outside", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    graph = onnx.helper.make_graph([], "g", [], [], [onnx.numpy_helper.from_array(NUMBERS.reshape(2, 3), "w"), small, outside])
    model = onnx.helper.make_model(graph, producer_name="me")
    checkpoint = read(tmp_path, model.SerializeToString(), ".onnx")
    assert checkpoint["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert checkpoint["half"].astype(np.float32).tolist() == [1, 2]
    assert dict(checkpoint.passed_over) == {"outside": "its data lie in another file"}
    assert checkpoint.metadata["producer_name"] == "me"


def test_bad_onnx(tmp_path):
    onnx = pytest.importorskip("onnx")
    short = onnx.TensorProto(name="w", data_type=1, dims=[7], raw_data=DATA)
    twice = onnx.numpy_helper.from_array(NUMBERS, "w")
    for tensors, message in (([short], "initializer 'w' is not usable"), ([twice, twice], "has two initializers named 'w'")):
        model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
        with pytest.raises(FormatError, match=message):
            read(tmp_path, model.SerializeToString(), ".onnx")
    for content in (b"hello", safetensors(), bytes(8)):
        with pytest.raises(FormatError, match="is no ONNX model"):
            read(tmp_path, content, ".onnx")


def test_missing_onnx_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'npreparam\[onnx\]'"):
        read(tmp_path, b"\x08\x07", ".onnx")
