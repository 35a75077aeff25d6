"""PyTorch's formats: files made by hand, and files written by torch itself where it is installed."""

import struct
import zipfile

import numpy as np
import pytest

from npreparam import FormatError
from npreparam.checkpoints import load
from tests.checkpoints.build import (
    DATA,
    FALSE,
    GOOD,
    NONE,
    NUMBERS,
    archive,
    call,
    dict_of,
    integer,
    legacy,
    mark,
    name,
    program,
    storage,
    tensor,
    text,
    tuple_of,
    zipped,
)

WRITERS = {"zip": archive, "legacy": legacy}


def read(tmp_path, content, **options):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    return load(path, **options)


@pytest.mark.parametrize("writer", WRITERS)
def test_by_hand(tmp_path, writer):
    checkpoint = read(tmp_path, WRITERS[writer]())
    assert list(checkpoint) == ["w", "b"]
    assert checkpoint["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert checkpoint["b"].tolist() == [3, 4, 5]
    assert checkpoint["w"].dtype == np.float32
    assert np.shares_memory(checkpoint["w"], checkpoint["b"])
    assert checkpoint.aliases() == ()
    assert checkpoint.shared_storages() == (("w", "b"),)
    with pytest.raises(ValueError, match="read-only"):
        checkpoint["w"][0, 0] = 1


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(("offset", "shape", "strides", "expected"), [
    (0, (3, 2), (1, 3), [[0, 3], [1, 4], [2, 5]]),
    (1, (2, 2), (3, 1), [[1, 2], [4, 5]]),
    (0, (3,), (2,), [0, 2, 4]),
    (4, (2, 2), (0, 1), [[4, 5], [4, 5]]),
    (5, (), (), 5),
    (0, (0, 3), (3, 1), np.empty((0, 3)).tolist()),
    (5, (1,), (10**9,), [5]),
    (0, (2, 2), (1, 1), [[0, 1], [1, 2]]),
])
def test_strides_are_resolved_exactly(tmp_path, writer, offset, shape, strides, expected):
    array = read(tmp_path, WRITERS[writer](dict_of(w=tensor(None, offset, shape, strides))))["w"]
    assert array.tolist() == expected
    assert array.shape == shape


def test_equal_views_are_aliases(tmp_path):
    view = tensor(offset=1, shape=(2,), strides=(1,))
    checkpoint = read(tmp_path, archive(dict_of(a=view, b=tensor(), c=view)))
    assert checkpoint.aliases() == (("a", "c"),)


def test_big_endian_numbers(tmp_path):
    content = archive(storages={"0": NUMBERS.astype(">f4").tobytes()}, byteorder=b"big")
    assert read(tmp_path, content)["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_big_endian_numbers_of_unknown_type_are_refused(tmp_path):
    body = dict_of(w=tensor(tuple_of(text("storage"), name("torch.storage", "UntypedStorage"), text("0"), text("cpu"), integer(24)) + b"Q"))
    with pytest.raises(FormatError, match="big-endian numbers as mere bytes"):
        read(tmp_path, archive(body, byteorder=b"big"))


def test_which_weights_are_taken(tmp_path):
    body = dict_of(epoch=integer(7), state_dict=dict_of(w=tensor()), params_ema=dict_of(v=tensor()), optimizer=dict_of(m=tensor()))
    content = archive(body)
    best = read(tmp_path, content)
    assert list(best) == ["v"]
    assert best.metadata == {"epoch": 7}
    assert {passed.name: passed.reason for passed in best.passed_over} == {
        key: f"1 tensors beside those of 'params_ema'; `entry={key!r}` reads them instead" for key in ("state_dict", "optimizer")}
    assert list(read(tmp_path, content, entry="state_dict")) == ["w"]
    assert list(read(tmp_path, content, entry="")) == ["state_dict.w", "params_ema.v", "optimizer.m"]
    with pytest.raises(FormatError, match=r"`entry` \(='weights'\) holds no tensors; these do: optimizer, params_ema, state_dict"):
        read(tmp_path, content, entry="weights")


def module(parameters, buffers, modules, *more):
    """A pickled network layer: its class is a name, its tensors lie in dictionaries."""
    state = dict_of(_parameters=parameters, _buffers=buffers, _modules=modules, training=FALSE, eps=integer(3),
                    _non_persistent_buffers_set=b"]" + mark(*map(text, more)) + b"e")
    return name("mine", "Layer") + b")\x81" + state + b"b"


def test_a_pickled_network_is_read_by_its_modules(tmp_path):
    inner = module(dict_of(weight=tensor(), bias=NONE), dict_of(running_var=tensor(shape=(2,), strides=(1,)), scratch=tensor()), b"}", "scratch")
    checkpoint = read(tmp_path, archive(dict_of(model=module(b"}", b"}", dict_of(conv=inner)))))
    assert list(checkpoint) == ["conv.weight", "conv.running_var"]
    assert dict(checkpoint.passed_over)["mine.Layer"] == "a class or function of the file, mentioned 2 times; neither imported nor called"


def legacy_with(**changes):
    parts = {"magic": b"\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little"), "version": integer(1001), "system": b"}", "tree": GOOD,
             "keys": b"]" + text("0") + b"a", "storage": struct.pack("<q", 6) + DATA} | changes
    return b"".join(program(parts[key]) for key in ("magic", "version", "system", "tree", "keys")) + parts["storage"]


BAD = {
    "another version": (legacy_with(version=integer(1002)), "does not begin with PyTorch's magic number, version 1001"),
    "a system that is no dict": (legacy_with(system=NONE), "system record"),
    "keys that are no list": (legacy_with(keys=NONE), "the list of storages is not that of the storages used"),
    "a key too many": (legacy_with(keys=b"]" + mark(text("0"), text("1")) + b"e"), "the list of storages is not"),
    "a key twice": (legacy_with(keys=b"]" + mark(text("0"), text("0")) + b"e"), "the list of storages is not"),
    "a key that is a number": (legacy_with(keys=b"]" + integer(0) + b"a"), "the list of storages is not"),
    "a storage too short": (legacy_with(storage=struct.pack("<q", 6) + DATA[:-1]), "31 bytes are left"),
    "a storage of another size": (legacy_with(storage=struct.pack("<q", 5) + DATA), "storage '0' has 5 elements"),
    "a storage of negative size": (legacy_with(storage=struct.pack("<q", -1) + DATA), "were announced"),
    "more after the end": (legacy_with() + b"x", "goes on for 1 bytes after its last storage"),
    "a view of a storage": (legacy_with(tree=dict_of(w=tensor(storage("FloatStorage", "0", 6, tuple_of(text("v"), integer(0), integer(3)))))),
                            "stored in parts, as before PyTorch 0.4"),
    "no pickle": (zipped({"a/version": b"3", "x/y/data.pkl": program(GOOD)}), "has 0 members that are named data.pkl"),
    "two pickles": (zipped({"a/data.pkl": program(GOOD), "b/data.pkl": program(GOOD)}), "has 2 members that are named data.pkl"),
    "TorchScript": (archive(**{"constants.pkl": program(NONE)}), "is a TorchScript program"),
    "a strange byte order": (archive(byteorder=b"middle"), "has the byte order b'middle'"),
    "a storage of odd size": (archive(storages={"0": DATA + b"x"}), "has 25 bytes, which is no multiple of 4"),
    "no storage": (archive(storages={}), "storage '0' is used, but not in the file"),
    "a bool that is 2": (archive(dict_of(w=tensor(storage("BoolStorage", "0", 6))), {"0": bytes([0, 1, 2, 0, 0, 0])}), "holds the byte 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(tmp_path, case):
    content, message = BAD[case]
    with pytest.raises(FormatError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize("writer", WRITERS)
def test_every_truncation_is_refused(tmp_path, writer):
    content = WRITERS[writer]()
    for length in range(len(content)):
        with pytest.raises(FormatError):
            read(tmp_path, content[:length])


def test_every_flipped_bit_of_the_numbers_is_noticed(tmp_path):
    """The archive's checksums: no bit of a weight can change unseen."""
    content = archive()
    start = content.index(DATA)
    for at in range(start, start + len(DATA)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            with pytest.raises(FormatError, match="is damaged: its CRC-32"):
                read(tmp_path, bytes(damaged))


def test_archives_without_checksums(tmp_path):
    """torch.save writes zeros for all of them when told so; one that is missing among others is a damage."""
    torch = pytest.importorskip("torch")
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.arange(6.0)}, tmp_path / "model.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert load(tmp_path / "model.pth")["w"].tolist() == NUMBERS.tolist()
    content = bytearray(archive())
    entry = content.rindex(b"PK\1\2")
    content[entry + 16 : entry + 20] = bytes(4)
    with pytest.raises(FormatError, match=r"is damaged: its CRC-32 is .*, not 00000000"):
        read(tmp_path, bytes(content))


def test_compressed_archives_are_read_too(tmp_path):
    assert read(tmp_path, archive(compress=zipfile.ZIP_DEFLATED))["b"].tolist() == [3, 4, 5]


def torch_tree(torch):
    """Views, shared storages, every number format, a network, and nested dictionaries."""
    base = torch.arange(24.0).reshape(4, 6)
    tree = {"base": base, "transposed": base.T, "part": base[1:3, ::2], "again": base, "expanded": base[0].expand(5, 6), "scalar": torch.tensor(2.5),
            "empty": torch.empty(0, 3), "parameter": torch.nn.Parameter(base[:2]), "conjugate": torch.tensor([1 + 2j]).conj(),
            "nested": {"list": [base[0], (base[1],)]}}
    for kind in ("float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex128", "uint16", "uint32"):
        tree[kind] = torch.tensor([0, 1, 0, 1]).to(getattr(torch, kind))
    return tree


@pytest.mark.parametrize("new", [True, False])
def test_files_of_torch(tmp_path, new):
    torch = pytest.importorskip("torch")
    tree = torch_tree(torch)
    torch.save(tree, tmp_path / "model.pth", _use_new_zipfile_serialization=new)
    ours = load(tmp_path / "model.pth")
    tree |= {"nested.list.0": tree["nested"]["list"][0], "nested.list.1.0": tree["nested"]["list"][1][0]}
    del tree["nested"]
    assert sorted(ours) == sorted(tree)
    for key, value in tree.items():
        witness = value.detach().resolve_conj().numpy()
        assert ours[key].dtype == witness.dtype, key
        assert ours[key].shape == witness.shape
        assert (ours[key] == witness).all()
    assert ours.aliases() == (("base", "again"),)


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"])
@pytest.mark.parametrize("new", [True, False])
def test_small_floats_of_torch(tmp_path, kind, new):
    torch = pytest.importorskip("torch")
    pytest.importorskip("ml_dtypes")
    value = torch.arange(256, dtype=torch.uint8).view(getattr(torch, kind))
    torch.save({"w": value}, tmp_path / "model.pth", _use_new_zipfile_serialization=new)
    ours = load(tmp_path / "model.pth")["w"]
    assert ours.dtype.name == kind
    assert ours.shape == value.shape
    assert np.array_equal(ours.astype(np.float32), value.to(torch.float32).numpy(), equal_nan=True)


def test_networks_and_state_dicts_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.ReLU())
    torch.save({"model": network}, tmp_path / "whole.pth")
    torch.save(network.state_dict(), tmp_path / "state.pth")
    whole, state = load(tmp_path / "whole.pth"), load(tmp_path / "state.pth")
    assert sorted(whole) == sorted(state) == sorted(network.state_dict())
    assert all((whole[key] == state[key]).all() for key in state)


def test_what_is_no_dense_tensor_is_passed_over(tmp_path):
    torch = pytest.importorskip("torch")
    sparse = torch.sparse_coo_tensor(torch.tensor([[0], [1]]), torch.tensor([1.0]), (2, 2), check_invariants=True)
    torch.save({"dense": torch.ones(2), "sparse": sparse}, tmp_path / "model.pth")
    ours = load(tmp_path / "model.pth")
    assert list(ours) == ["dense"]
    assert dict(ours.passed_over)["sparse"] == "an object of torch._utils._rebuild_sparse_tensor, which is not built"


def test_one_tensor_alone(tmp_path):
    assert read(tmp_path, archive(tensor()))["tensor"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_call_with_a_keyword_is_still_no_call(tmp_path):
    body = dict_of(w=tensor(), x=name("os", "system") + b")" + b"}" + b"\x92")
    assert "x" in dict(read(tmp_path, archive(body)).passed_over)
    assert call(name("a", "b")) == b"ca\nb\n(tR"
