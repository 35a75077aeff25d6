"""Checkpoint files made by hand, opcode by opcode, and ways to damage them."""

import io
import json
import struct
import zipfile

import numpy as np

NONE, FALSE, EMPTY_TUPLE = b"N", b"\x89", b")"


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value):
    return b"J" + struct.pack("<i", value)


def mark(*parts):
    return b"(" + b"".join(parts)


def tuple_of(*parts):
    return mark(*parts) + b"t"


def dict_of(**items):
    return b"}" + mark(*(text(key) + value for key, value in items.items())) + b"u"


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def call(function, *arguments):
    return function + tuple_of(*arguments) + b"R"


def storage(kind="FloatStorage", key="0", size=6, *more):
    return tuple_of(text("storage"), name("torch", kind), text(key), text("cpu"), integer(size), *more) + b"Q"


def tensor(source=None, offset=0, shape=(2, 3), strides=(3, 1)):
    hooks = call(name("collections", "OrderedDict"))
    return call(name("torch._utils", "_rebuild_tensor_v2"), source or storage(), integer(offset), tuple_of(*map(integer, shape)),
                tuple_of(*map(integer, strides)), FALSE, hooks)


def program(body):
    """A whole pickle from the opcodes of one value."""
    return b"\x80\x02" + body + b"."


NUMBERS = np.arange(6, dtype="<f4")
GOOD = dict_of(w=tensor(), b=tensor(offset=3, shape=(3,), strides=(1,)))


def archive(body=GOOD, storages=None, root="archive", compress=zipfile.ZIP_STORED, **more):
    """A file as torch.save writes it."""
    members = {"data.pkl": program(body), "version": b"3\n", **more}
    members |= {f"data/{key}": data for key, data in ({"0": NUMBERS.tobytes()} if storages is None else storages).items()}
    return zipped({f"{root}/{member}": data for member, data in members.items()}, compress)


def zipped(members, compress=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compress) as file:
        for member, data in members.items():
            file.writestr(zipfile.ZipInfo(member), data, compress)
    return buffer.getvalue()


def legacy(body=GOOD, keys=("0",), storages=(NUMBERS,)):
    """A file as torch.save wrote it before PyTorch 1.6."""
    magic = b"\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
    system = b"}" + text("little_endian") + b"\x88s"
    head = b"".join(program(part) for part in (magic, integer(1001), system, body, b"]" + mark(*map(text, keys)) + b"e"))
    return head + b"".join(struct.pack("<q", len(data)) + data.tobytes() for data in storages)


DATA = NUMBERS.tobytes()


def safetensors(header=None, data=DATA):
    """A file from its header, a dict or raw bytes."""
    if header is None:
        header = {"__metadata__": {"epoch": "3"}, "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def numpy_pickle():
    """A pickle of a dict of NumPy arrays, as PaddlePaddle writes it."""
    import pickle
    return pickle.dumps({"w": NUMBERS.reshape(2, 3), "n": np.float64(2), "epoch": 3}, protocol=4)


def onnx_model():
    """An ONNX graph with two initializers; None without the onnx package."""
    try:
        import onnx
    except ImportError:
        return None
    tensors = [onnx.numpy_helper.from_array(NUMBERS.reshape(2, 3), "w"), onnx.helper.make_tensor("b", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])]
    return onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors)).SerializeToString()


def seeds():
    """One good small file for each reader, by file name."""
    model = onnx_model()
    files = {} if model is None else {"g.onnx": model}
    return files | {"zip.pth": archive(), "legacy.pth": legacy(), "st.safetensors": safetensors(), "stored.npz": zipped({"w.npy": npy(NUMBERS)}),
                    "deflated.npz": zipped({"w.npy": npy(NUMBERS), "b.npy": npy(np.zeros(99))}, zipfile.ZIP_DEFLATED),
                    "paddle.pdparams": numpy_pickle()}


def damage(data, rng):
    """A file with a few bytes changed, removed, repeated or inserted, or cut short."""
    damaged = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at, n = (int(rng.integers(0, len(damaged) + 1)) for _ in range(2))
        n = min(n, 8)
        match rng.integers(0, 6):
            case 0:
                damaged[at : at + 1] = bytes([rng.integers(0, 256)])
            case 1:
                del damaged[at : at + n]
            case 2:
                damaged[at:at] = damaged[at : at + n]
            case 3:
                damaged[at:at] = rng.bytes(n)
            case 4:
                del damaged[at:]
            case 5 if at < len(damaged):
                damaged[at] ^= 1 << int(rng.integers(0, 8))
    return bytes(damaged)


def damaged_file(seed_name, content, rng):
    """A damaged seed; half of the archives are damaged inside, where checksums do not protect them."""
    if rng.integers(0, 2):
        return damage(content, rng)
    if seed_name == "zip.pth":
        inner = program(GOOD)
        return zipped({"a/data.pkl": damage(inner, rng), "a/data/0": NUMBERS.tobytes()})
    if seed_name.endswith(".npz"):
        return zipped({"w.npy": damage(npy(NUMBERS), rng)})
    if seed_name == "st.safetensors":
        return safetensors(damage(content[8 : 8 + content[0]], rng))
    return damage(content, rng)
