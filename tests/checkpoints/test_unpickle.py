"""Hostile pickles: nothing in them runs, and whatever is wrong is one FormatError."""

import pickle
import struct
import sys

import pytest

from npreparam import FormatError
from npreparam.checkpoints import load
from tests.checkpoints.build import (
    EMPTY_TUPLE,
    FALSE,
    GOOD,
    NONE,
    archive,
    call,
    dict_of,
    integer,
    legacy,
    mark,
    name,
    numpy_pickle,
    program,
    storage,
    tensor,
    text,
    tuple_of,
    zipped,
)


def read(tmp_path, body, **more):
    path = tmp_path / "model.pth"
    path.write_bytes(archive(body, **more))
    return load(path)


def shell(sentinel):
    return text(f"touch {sentinel}")


def source(sentinel):
    return text(f"open({str(sentinel)!r}, 'w').close()")


# Each makes the file `s` when a real unpickler reads it.
GADGETS = {
    "os.system by REDUCE": lambda s: call(name("os", "system"), shell(s)),
    "posix.system": lambda s: call(name("posix", "system"), shell(s)),
    "builtins.eval": lambda s: call(name("builtins", "eval"), source(s)),
    "builtins.exec under Python 2's name": lambda s: call(name("__builtin__", "exec"), source(s)),
    "subprocess.check_call": lambda s: call(name("subprocess", "check_call"), b"]" + mark(text("touch"), text(str(s))) + b"e"),
    "nested reduce": lambda s: call(
        call(name("builtins", "getattr"), call(name("importlib", "import_module"), text("os")), text("system")), shell(s)),
    "STACK_GLOBAL": lambda s: text("os") + text("system") + b"\x93" + tuple_of(shell(s)) + b"R",
    "INST": lambda s: mark(shell(s)) + b"ios\nsystem\n",
    "OBJ": lambda s: mark(name("os", "system"), shell(s)) + b"o",
    "BUILD by __setstate__": lambda s: name("builtins", "object") + EMPTY_TUPLE + b"\x81" + b"}" + text("__setstate__") + name("os", "system") + b"sb"
    + shell(s) + b"b",
    "a dict's item by a call": lambda s: dict_of(w=tensor(), x=call(name("os", "system"), shell(s))),
    "a tensor's shape by a call": lambda s: call(name("torch._utils", "_rebuild_tensor_v2"), storage(), integer(0),
                                                 call(name("os", "system"), shell(s)), tuple_of(), FALSE, NONE),
    "OrderedDict from a call": lambda s: call(name("collections", "OrderedDict"), call(name("os", "system"), shell(s))),
    "memo, then REDUCE": lambda s: name("os", "system") + b"q\x05" + b"0h\x05" + tuple_of(shell(s)) + b"R",
}


@pytest.mark.parametrize("gadget", GADGETS)
def test_nothing_is_executed(tmp_path, gadget):
    sentinel = tmp_path / "sentinel"
    try:
        checkpoint = read(tmp_path, GADGETS[gadget](sentinel))
        assert any("neither imported nor called" in passed.reason for passed in checkpoint.passed_over)
    except FormatError as error:
        assert "\n" not in str(error)  # noqa: PT017
    assert not sentinel.exists()


@pytest.mark.parametrize("gadget", ["os.system by REDUCE", "builtins.eval", "nested reduce", "STACK_GLOBAL", "INST", "OBJ", "memo, then REDUCE"])
def test_the_gadgets_do_work_on_a_real_unpickler(tmp_path, gadget):
    """The tests tested: Python's own unpickler falls for them."""
    sentinel = tmp_path / "sentinel"
    pickle.loads(program(GADGETS[gadget](sentinel)))
    assert sentinel.exists()


def test_nothing_is_imported(tmp_path):
    assert "antigravity" not in sys.modules
    checkpoint = read(tmp_path, dict_of(w=tensor(), x=name("antigravity", "fly"), y=call(name("antigravity", "geohash"), integer(1))))
    assert "antigravity" not in sys.modules
    assert {passed.name for passed in checkpoint.passed_over} == {"antigravity.fly", "antigravity.geohash", "y"}
    assert list(checkpoint) == ["w"]


def nested(depth):
    return b"]" * depth + b"a" * (depth - 1)


def laughs(levels=40):
    """Lists of ten times the list before: 10**levels entries from a few hundred bytes."""
    body = b"]" + text("ha") + b"a" + b"q\x00"
    for level in range(levels):
        body += b"0]" + mark(*[b"h" + bytes([level])] * 10) + b"e" + b"q" + bytes([level + 1])
    return body


HOSTILE = {
    "a billion laughs": (laughs(), "more than 1048576 entries"),
    "a list that contains itself": (b"]q\x00h\x00a", "nested deeper than 100 levels, or contains itself"),
    "a dict that contains itself": (b"}q\x00" + text("x") + b"h\x00s", "nested deeper than 100 levels"),
    "a million levels": (nested(10**6), "nested deeper than 100 levels"),
    "a million levels of tuples": (b")" + b"\x85" * 10**6, "nested deeper than 100 levels"),
    "a deep tuple as a key": (b"}" + b")" + b"\x85" * 10**6 + NONE + b"s", "a mapping has a tuple as a key"),
    "an unhashable key": (b"}](" + b"t" + NONE + b"s", "as a key|keys and values"),
    "a list as a key": (b"}]" + NONE + b"s", "a mapping has a list as a key"),
    "a key set twice": (b"}" + mark(text("w") + NONE, text("w") + NONE) + b"u", "key 'w' is set twice"),
    "a huge LONG4": (b"\x8b" + struct.pack("<i", 2**31 - 1), "an integer of 2147483647 bytes; the limit is 1024"),
    "a negative LONG4": (b"\x8b" + struct.pack("<i", -1), "an integer of -1 bytes"),
    "a huge LONG in text": (b"L" + b"9" * 10**6 + b"L\n", "an integer is longer"),
    "a huge string": (b"X" + b"\xff" * 4, "the pickle is truncated"),
    "an endless 8-byte string": (b"\x8d" + b"\xff" * 8, "the pickle is truncated"),
    "a negative string": (b"T" + struct.pack("<i", -5), "the pickle is truncated"),
    "an extension code": (b"\x82\x01", "opcode 0x82 is unknown or refused"),
    "EXT2": (b"\x83\x01\x00", "opcode 0x83"),
    "EXT4": (b"\x84\x01\x00\x00\x00", "opcode 0x84"),
    "an out-of-band buffer": (b"\x97", "opcode 0x97"),
    "an unknown opcode": (b"\xff", "opcode 0xff"),
    "a frame beyond the end": (b"\x95" + b"\xff" * 8, "a frame is longer than the rest"),
    "protocol 9": (b"\x80\x09N", "protocol 9 is unknown"),
    "an empty stack": (b"0", "is malformed before byte 3"),
    "REDUCE without a function": (b"R", "the stack is too short"),
    "a call of a number": (integer(1) + EMPTY_TUPLE + b"R", "a int is to be called"),
    "a call of a dict": (b"}" + EMPTY_TUPLE + b"R", "a dict is to be called"),
    "arguments that are no tuple": (name("collections", "OrderedDict") + b"]R", "to be called with a list"),
    "a name that is a number": (integer(1) + text("x") + b"\x93", "is not made of text"),
    "a memo entry that is not set": (b"h\x07", "entry 7 of the memo is used before it is set"),
    "a memo key that is no number": (b"gx\n", "a memo key must be a small number"),
    "a memo key of a million digits": (b"g" + b"1" * 10**6 + b"\n", "a memo key must be a small number"),
    "APPEND to a number": (integer(1) + NONE + b"a", "items are appended to a int"),
    "SETITEMS with an odd number": (b"}" + mark(text("w")) + b"u", "1 keys and values for a dict"),
    "a mark too few": (b"t", "malformed"),
    "no quotes": (b"Sabc\n", "a string without quotes"),
    "no newline": (b"Sabc", "truncated"),
    "text that is no UTF-8": (b"X\x01\x00\x00\x00\xff", "malformed"),
    "a repeated copy": (text("x" * 2**16) + b"q\x000" + (name("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R0") * 200 + NONE,
                        "copy the same data over and over"),
    "a persistent id that is a number": (integer(1) + b"Q", "a persistent id is not"),
    "a persistent id in text": (b"P0\n", "a persistent id is not"),
    "a persistent id of another kind": (tuple_of(text("file"), *[NONE] * 4) + b"Q", "a persistent id is not"),
    "a storage of os.system": (tuple_of(text("storage"), name("os", "system"), text("0"), text("cpu"), integer(6)) + b"Q", "something else than"),
    "a storage of negative size": (storage(size=-1), "something else than"),
    "a storage key that is a number": (tuple_of(text("storage"), name("torch", "FloatStorage"), integer(0), text("cpu"), integer(6)) + b"Q",
                                       "something else than"),
    "a storage described twice": (tuple_of(storage(), storage(size=5)), "storage '0' is described in two ways"),
    "a storage that is not there": (dict_of(w=tensor(storage(key="7"))), "storage '7' is used, but not in the file"),
    "a storage key that is a path": (dict_of(w=tensor(storage(key="../../../etc/passwd"))), "is used, but not in the file"),
    "a storage that is shorter": (dict_of(w=tensor(storage(size=7))), "has 6 elements; 7 were announced"),
    "a tensor of no storage": (dict_of(w=tensor(NONE)), "a tensor must consist of a storage and non-negative integers"),
    "a negative offset": (dict_of(w=tensor(offset=-1)), "non-negative integers"),
    "a negative stride": (dict_of(w=tensor(strides=(-3, 1))), "non-negative integers"),
    "a negative shape": (dict_of(w=tensor(shape=(-2, 3))), "non-negative integers"),
    "more strides than axes": (dict_of(w=tensor(strides=(1, 1, 1))), "non-negative integers"),
    "a tensor outside its storage": (dict_of(w=tensor(offset=1)), "reaches element 6 of storage '0', which has 6"),
    "a stride outside the storage": (dict_of(w=tensor(strides=(2**31 - 1, 1))), "reaches element 2147483649"),
    "a shape that overflows": (dict_of(w=tensor(shape=(2**31 - 1,) * 5, strides=(0,) * 5)), "the limit is 16777216"),
    "an empty shape that overflows": (dict_of(w=tensor(shape=(0,) + (2**31 - 1,) * 5, strides=(0,) * 6)), "is not usable"),
    "too few arguments": (dict_of(w=call(name("torch._utils", "_rebuild_tensor_v2"), storage())), "called with 1 arguments"),
    "the same name twice": (dict_of(**{"a.b": tensor(), "a": dict_of(b=tensor())}), "two tensors are named 'a.b'"),
    "no tensors": (dict_of(x=integer(1)), "holds no tensors"),
    "nothing but a call": (call(name("os", "system"), text("true")), "holds no tensors; it names os.system"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles_are_one_clear_line(tmp_path, case):
    body, message = HOSTILE[case]
    with pytest.raises(FormatError, match=message) as caught:
        read(tmp_path, body)
    assert str(caught.value).startswith(f"{tmp_path / 'model.pth'}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_names_cannot_command_the_terminal(tmp_path):
    with pytest.raises(FormatError) as caught:
        read(tmp_path, text("o\n\x1b[2Js") + text("x\ty") + b"\x93")
    assert str(caught.value).isprintable()
    with pytest.raises(FormatError, match="storage") as caught:
        read(tmp_path, dict_of(w=tensor(storage(key="\x1b[2J\n"))))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("case", HOSTILE)
def test_the_old_format_is_as_careful(tmp_path, case):
    path = tmp_path / "model.pth"
    path.write_bytes(legacy(HOSTILE[case][0]))
    with pytest.raises(FormatError):
        load(path)


def test_bytes_after_a_plain_pickle(tmp_path):
    (tmp_path / "model.pdparams").write_bytes(numpy_pickle() + b"x")
    with pytest.raises(FormatError, match="goes on for 1 bytes after its pickle"):
        load(tmp_path / "model.pdparams")


def test_every_truncation_of_the_pickle_is_refused(tmp_path):
    whole = program(GOOD)
    for length in range(len(whole)):
        path = tmp_path / "model.pth"
        path.write_bytes(zipped({"a/data.pkl": whole[:length], "a/data/0": bytes(24)}))
        with pytest.raises(FormatError):
            load(path)


def test_the_interpreter_knows_every_opcode_but_six():
    """Python's own list of opcodes: the six that are left out reach a registry of classes, or data outside the pickle."""
    import pickletools

    from npreparam.checkpoints._unpickle import OPCODES
    missing = {opcode.name for opcode in pickletools.opcodes if opcode.code.encode("latin1")[0] not in OPCODES}
    assert missing == {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER", "STOP"}


AUDIT = """
import sys
from pathlib import Path
from npreparam.checkpoints import load
from npreparam import FormatError
import numpy, ml_dtypes
events = []
load(sys.argv[1])  # a good file: what reading itself imports on first use
sys.addaudithook(lambda event, arguments: events.append((event, str(arguments)[:80])))
for path in sys.argv[2:]:
    try:
        load(path)
    except FormatError:
        pass
    if {control}:
        __import__("os").system("true")
quiet = ("open", "mmap.__new__")
print([event for event in events if event[0] not in quiet])
"""


@pytest.mark.parametrize("control", [False, True])
def test_the_interpreter_s_audit_sees_nothing(tmp_path, control):
    """Python reports every import, compilation, process and lookup of a pickled name to its audit hooks; as a control, one is planted."""
    import subprocess
    from pathlib import Path
    files = [tmp_path / "good.pth"]
    files[0].write_bytes(archive())
    for i, gadget in enumerate(GADGETS.values()):
        files.append(tmp_path / f"{i}.pth")
        files[-1].write_bytes(archive(dict_of(w=tensor(), x=gadget(tmp_path / "sentinel"))))
    done = subprocess.run([sys.executable, "-c", AUDIT.format(control=control), *map(str, files)], capture_output=True, text=True, timeout=300,
                          check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert ("os.system" in done.stdout) == control
    if not control:
        assert done.stdout.strip() == "[]"
