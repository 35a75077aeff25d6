"""The safetensors format, by hand and against its library."""

import struct

import pytest

from npreparam import FormatError
from npreparam.checkpoints import load
from tests.checkpoints.build import DATA, safetensors


def read(tmp_path, content, ending):
    path = tmp_path / f"model{ending}"
    path.write_bytes(content)
    return load(path)


def record(dtype="F32", shape=(2, 3), offsets=(0, 24), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


BAD_SAFETENSORS = {
    "seven bytes": (b"\x01" * 7, "announces a header of"),
    "a header beyond the end": (struct.pack("<Q", 100) + b"{}", "announces a header of 100 bytes; 2 follow"),
    "a header of 2**64 - 1": (b"\xff" * 8 + b"{}", "announces a header of 18446744073709551615 bytes"),
    "no JSON": (safetensors(b"{]"), "a header that is no JSON"),
    "JSON that is no object": (safetensors(b"[{}]"), "no JSON object"),
    "JSON nested without end": (safetensors(b'{"a":' + b"[" * 10**5), "no JSON"),
    "JSON with an endless number": (safetensors(b'{"a":' + b"1" * 5000 + b"}"), "no JSON"),
    "no UTF-8": (safetensors(b'{"\xff":1}'), "no JSON"),
    "a name twice": (safetensors(b'{"w":{"dtype":"F32","shape":[6],"data_offsets":[0,24]},"w":{"dtype":"F32","shape":[6],"data_offsets":[0,24]}}'),
                     "has the key 'w' twice"),
    "a field twice": (safetensors(b'{"w":{"dtype":"F32","dtype":"F64","shape":[3],"data_offsets":[0,24]}}'), "has the key 'dtype' twice"),
    "a field too many": (safetensors({"w": record(more=1)}), "must have exactly dtype, shape and data_offsets"),
    "a record that is a number": (safetensors({"w": 3}), "must have exactly dtype"),
    "an unknown dtype": (safetensors({"w": record("F33")}), "has the dtype 'F33'"),
    "a dtype that is a list": (safetensors({"w": record([])}), "has the dtype"),
    "a negative length": (safetensors({"w": record(shape=(-2, -3))}), "not a list of non-negative integers"),
    "a fractional length": (safetensors({"w": record(shape=(2.0, 3))}), "not a list of non-negative integers"),
    "a length that is true": (safetensors({"w": record(shape=(True, 6))}), "not a list of non-negative integers"),
    "a shape that overflows": (safetensors({"w": record(shape=(2**62, 2**62))}), "has 24 bytes"),
    "an empty shape that overflows": (safetensors({"w": record(shape=(0, 2**62, 2**62), offsets=(0, 0))}, b""), "is not usable"),
    "a length of 2**64": (safetensors({"w": record(shape=(2**64,))}), "not a list of non-negative integers"),
    "65 axes": (safetensors({"w": record(shape=[1] * 65)}), "not a list of non-negative integers"),
    "a shape of another size": (safetensors({"w": record(shape=(2, 2))}), r"of shape \(2, 2\) and dtype F32 has 24 bytes"),
    "offsets outside the file": (safetensors({"w": record(offsets=(8, 32))}), "begins at byte 8, but the one before it ends at 0"),
    "too long for the file": (safetensors({"w": record(shape=(7,), offsets=(0, 28))}), "has 24 bytes of data; its tensors take 28"),
    "offsets backwards": (safetensors({"w": record(offsets=(24, 0))}), "has -24 bytes"),
    "one offset": (safetensors({"w": record(offsets=(24,))}), "not two non-negative integers"),
    "overlapping tensors": (safetensors({"w": record(), "v": record(shape=(3,), offsets=(12, 24))}),
                            "begins at byte 12, but the one before it ends at 24"),
    "a gap": (safetensors({"w": record(shape=(2,), offsets=(0, 8)), "v": record(shape=(3,), offsets=(12, 24))}), "begins at byte 12"),
    "data that no tensor has": (safetensors(data=DATA + b"xxxx"), "has 28 bytes of data; its tensors take 24"),
    "metadata that are no text": (safetensors({"__metadata__": {"epoch": 3}, "w": record()}), "not a mapping of text to text"),
    "a bool that is 2": (safetensors({"w": record("BOOL", (24,))}, bytes([2] * 24)), "holds the byte 2"),
}


@pytest.mark.parametrize("case", BAD_SAFETENSORS)
def test_bad_safetensors(tmp_path, case):
    content, message = BAD_SAFETENSORS[case]
    with pytest.raises(FormatError, match=message) as caught:
        read(tmp_path, content, ".safetensors")
    assert str(caught.value).startswith(f"{tmp_path}/model.safetensors: ")
    assert "\n" not in str(caught.value)


def test_safetensors_by_hand(tmp_path):
    checkpoint = read(tmp_path, safetensors(), ".safetensors")
    assert checkpoint["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert checkpoint.metadata == {"epoch": "3"}
    assert checkpoint.format == "safetensors"


def test_unaligned_and_empty_safetensors(tmp_path):
    header = {"a": record("U8", (1,), (0, 1)), "w": record(offsets=(1, 25)), "none": record(shape=(0, 5), offsets=(25, 25))}
    checkpoint = read(tmp_path, safetensors(header, b"\7" + DATA), ".safetensors")
    assert checkpoint["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert checkpoint["none"].shape == (0, 5)
    assert list(read(tmp_path, safetensors({}, b""), ".safetensors")) == []
