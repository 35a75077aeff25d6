"""Honest pickles: NumPy's arrays, plain values, and every protocol."""

import pickle

import numpy as np
import pytest

from npreparam import FormatError
from npreparam.checkpoints import load
from tests.checkpoints.build import (
    FALSE,
    NONE,
    archive,
    call,
    dict_of,
    integer,
    name,
    tensor,
    text,
    tuple_of,
)


def read(tmp_path, body, **more):
    path = tmp_path / "model.pth"
    path.write_bytes(archive(body, **more))
    return load(path)


def numpy_array(state, kind=None):
    kind = kind or call(name("numpy", "dtype"), text("f4")) + tuple_of(integer(3), text("<"), NONE) + b"b"
    blank = call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), tuple_of(integer(0)), b"C\x01b")
    return blank + state(kind) + b"b"


NUMPY = {
    "too few bytes": (lambda kind: tuple_of(integer(1), tuple_of(integer(2)), kind, FALSE, b"C\x04abcd"), r"shape \(2,\) and dtype float32 has 4"),
    "a negative length": (lambda kind: tuple_of(integer(1), tuple_of(integer(-2)), kind, FALSE, b"C\x04abcd"), "must consist of bytes"),
    "a state of another form": (lambda kind: tuple_of(kind), "has a state that is not"),
    "data that are no bytes": (lambda kind: tuple_of(integer(1), tuple_of(integer(1)), kind, FALSE, b"]"), "must consist of bytes"),
}


@pytest.mark.parametrize("case", NUMPY)
def test_hostile_numpy_arrays(tmp_path, case):
    state, message = NUMPY[case]
    with pytest.raises(FormatError, match=message):
        read(tmp_path, dict_of(w=numpy_array(state)))


def test_an_array_of_objects_stays_unbuilt(tmp_path):
    kind = call(name("numpy", "dtype"), text("O8"))
    array = numpy_array(lambda kind: tuple_of(integer(1), tuple_of(integer(1)), kind, FALSE, b"]" + text("x") + b"a"), kind)
    checkpoint = read(tmp_path, dict_of(w=tensor(), x=array))
    assert list(checkpoint) == ["w"]
    assert [passed.name for passed in checkpoint.passed_over] == ["x"]


@pytest.mark.parametrize("protocol", range(2, 6))
def test_python_s_own_pickles_of_arrays_and_plain_values(tmp_path, protocol):
    """NumPy's own pickles, big-endian and Fortran-ordered ones too, against NumPy."""
    tree = {"f": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "big": np.arange(3, dtype=">i4"), "bool": np.array([True, False]),
            "scalar": np.float32(2.5), "empty": np.zeros((0, 4), np.float16), "complex": np.array([1 + 2j]),
            "plain": {"int": -(2**70), "text": "ä", "none": None, "float": 0.1, "bytes": [b"x", (True, 1)]}, "objects": np.array(["a", None])}
    path = tmp_path / "model.pdparams"
    path.write_bytes(pickle.dumps(tree, protocol))
    checkpoint = load(path)
    assert list(checkpoint) == ["f", "big", "bool", "scalar", "empty", "complex"]
    for key, array in checkpoint.items():
        assert array.shape == np.shape(tree[key])
        assert array.dtype == np.asarray(tree[key]).dtype.newbyteorder("=")
        assert (array == tree[key]).all()
        assert not array.flags.writeable
    plain = {key.removeprefix("plain."): value for key, value in checkpoint.metadata.items()}
    assert plain["int"] == -(2**70)
    assert (plain["text"], plain["none"], plain["float"]) == ("ä", None, 0.1)


@pytest.mark.parametrize("protocol", [0, 1])
def test_the_text_protocols(tmp_path, protocol):
    """Protocols 0 and 1 inside a PyTorch archive: numbers and text in lines."""
    values = {"i": 3, "big": 2**40, "f": 0.5, "t": True, "s": "ä\nb", "l": [1, (2, None)], "long": 10**30}
    pickled = pickle.dumps(values, protocol)[:-1]
    checkpoint = read(tmp_path, b"}" + text("w") + tensor() + b"s" + text("v") + pickled + b"s")
    assert {key: checkpoint.metadata[f"v.{key}"] for key in ("i", "big", "f", "t", "s", "long")} == {k: v for k, v in values.items() if k != "l"}
