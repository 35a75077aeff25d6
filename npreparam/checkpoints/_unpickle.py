"""A pickle interpreter that executes nothing.

A pickle is a program for a stack machine. This machine knows lists, dicts, strings and numbers; names stay names, calls go through a short
list of functions that build inert records (see _pickle_globals), and everything else becomes a placeholder.
Source: CPython, Lib/pickletools.py, which documents each opcode, protocols 0 to 5.
"""

from __future__ import annotations

import codecs
import pickle as codes  # for the opcodes' values alone
import struct
from collections.abc import Callable
from typing import Any

from npreparam._errors import FormatError
from npreparam.checkpoints._pickle_globals import HARMLESS, Named, NumpyArray, NumpyType, Placeholder, call, canonical, set_item

MAX_INTEGER = 1024  # bytes: more than any counter, seed or identifier needs
MALFORMED = (struct.error, IndexError, UnicodeError, ValueError, OverflowError)  # what slices, conversions and an empty stack raise


class Unpickler:
    """Reads one pickle after another from a buffer; `foreign` counts the names outside our short list."""

    def __init__(self, content: memoryview | bytes, position: int = 0, persistent: Callable[[Any], Any] | None = None) -> None:
        self.content = memoryview(content)
        self.position = position
        self.persistent = persistent
        self.foreign: dict[str, int] = {}
        self.allowance = 2 * len(self.content) + 2**20

    def load(self) -> Any:
        """The value of the next pickle; FormatError that tells the byte where it cannot be understood."""
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        start = self.position
        try:
            while (opcode := self.take(1)[0]) != codes.STOP[0]:
                if opcode not in OPCODES:
                    raise FormatError(f"opcode {opcode:#04x} is unknown or refused")
                OPCODES[opcode](self)
            return self.stack.pop()
        except FormatError as error:
            raise FormatError(f"pickle at byte {start}, before byte {self.position}: {error}") from None
        except MALFORMED:
            raise FormatError(f"pickle at byte {start} is malformed before byte {self.position}") from None

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self.position + count
        if count < 0 or end > len(self.content):
            raise FormatError("the pickle is truncated")
        part = bytes(self.content[self.position : end])
        self.position = end
        return part

    def line(self) -> bytes:
        """The bytes up to the next newline, as protocol 0 writes its arguments."""
        step, parts = 256, []
        while True:
            part = bytes(self.content[self.position : self.position + step])
            end = part.find(b"\n")
            self.position += len(part) if end < 0 else end + 1
            parts.append(part if end < 0 else part[:end])
            if end >= 0:
                return b"".join(parts)
            if not part:
                raise FormatError("the pickle is truncated")

    def number(self, form: str) -> Any:
        """One binary number in `struct` notation."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def charge(self, values: Any) -> None:
        """Count what a call copies: a pickler refers to each list or text once, a bomb to the same one a million times."""
        self.allowance -= sum(len(value) for value in values if isinstance(value, (str, bytes, list, tuple, dict)))
        if self.allowance < 0:
            raise FormatError("calls copy the same data over and over, which no pickler writes")

    def push(self, value: Any) -> None:
        """Onto the stack."""
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        """Everything above the last mark."""
        items, self.stack = self.stack, self.outer.pop()
        return items

    def name(self, module: Any, name: Any) -> None:
        """Push a module-level name, unseen."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise FormatError("a module-level name is not made of text")
        full = canonical(module, name)
        if full not in HARMLESS:
            self.foreign[full] = self.foreign.get(full, 0) + 1
        self.push(Named(full))

    def add_items(self, items: list[Any]) -> None:
        """Append to the list on top; what belongs to a placeholder is dropped with it."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Placeholder):
            raise FormatError(f"items are appended to a {type(target).__name__}")

    def set_items(self, items: list[Any]) -> None:
        """Alternating keys and values into the dict on top."""
        target = self.stack[-1]
        if len(items) % 2 or not isinstance(target, (dict, Placeholder)):
            raise FormatError(f"{len(items)} keys and values for a {type(target).__name__}")
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                set_item(target, key, value)

    def persist(self, identifier: Any) -> None:
        """Push what the file's reader knows under a persistent id."""
        if self.persistent is None:
            raise FormatError("a persistent id in a pickle that has no storages")
        self.push(self.persistent(identifier))


def _text(data: bytes) -> str | bytes:
    """Text of Python 2, whose strings were bytes."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _integer(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _decimal(u: Unpickler, line: bytes) -> None:
    if len(line) > MAX_INTEGER:
        raise FormatError("an integer is longer than any counter or seed")
    u.push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line.removesuffix(b"L")))


def _long(u: Unpickler, size: int) -> None:
    if not 0 <= size <= MAX_INTEGER:
        raise FormatError(f"an integer of {size} bytes; the limit is {MAX_INTEGER}")
    u.push(_integer(u.take(size)))


def _protocol(u: Unpickler) -> None:
    if (version := u.take(1)[0]) > 5:
        raise FormatError(f"pickle protocol {version} is unknown; 0 to 5 are")


def _frame(u: Unpickler) -> None:
    if u.number("<Q") > len(u.content) - u.position:
        raise FormatError("the pickle is truncated: a frame is longer than the rest")


def _pop(u: Unpickler) -> None:
    if u.stack:
        u.stack.pop()
    else:
        u.pop_mark()


def _memoize(u: Unpickler, key: int) -> None:
    u.memo[key] = u.stack[-1]


def _recall(u: Unpickler, key: int) -> None:
    if key not in u.memo:
        raise FormatError(f"entry {key} of the memo is used before it is set")
    u.push(u.memo[key])


def _memo_key(line: bytes) -> int:
    if not line.isdigit() or len(line) > 12:
        raise FormatError("a memo key must be a small number")
    return int(line)


def _take_last(u: Unpickler, count: int) -> tuple[Any, ...]:
    if len(u.stack) < count:
        raise FormatError("the stack is too short")
    items = tuple(u.stack[-count:])
    del u.stack[-count:]
    return items


def _call_last(u: Unpickler, count: int) -> None:
    target, arguments, *keywords = _take_last(u, count)
    if keywords and not isinstance(keywords[0], dict):
        raise FormatError("keyword arguments are not a mapping")
    _call(u, target, arguments)


def _call(u: Unpickler, target: Any, arguments: Any) -> None:
    if isinstance(arguments, tuple):
        u.charge(arguments)
    u.push(call(target, arguments))


def _build(u: Unpickler) -> None:
    """State for the object on top. A dict's attributes (a state dict's `_metadata`) and a tensor's hooks are not needed."""
    (state,) = _take_last(u, 1)
    target = u.stack[-1]
    if isinstance(target, (NumpyArray, NumpyType)):
        u.charge(state if isinstance(state, tuple) else ())
        target.set_state(state)
    elif isinstance(target, Placeholder):
        target.state = state


def _object(u: Unpickler) -> None:
    target, *arguments = u.pop_mark()
    _call(u, target, tuple(arguments))


def _instance(u: Unpickler) -> None:
    u.name(u.line().decode(), u.line().decode())
    target = u.stack.pop()
    _call(u, target, tuple(u.pop_mark()))


def _mark(u: Unpickler) -> None:
    u.outer.append(u.stack)
    u.stack = []


def _dict(u: Unpickler) -> None:
    items = u.pop_mark()
    u.push({})
    u.set_items(items)


def _sized(form: str, convert: Callable[[bytes], Any]) -> Callable[[Unpickler], None]:
    return lambda u: u.push(convert(u.take(u.number(form))))


def _utf8(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _quoted(line: bytes) -> str | bytes:
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
        raise FormatError("a string without quotes")
    return _text(codecs.escape_decode(line[1:-1])[0])


_HANDLERS: dict[bytes, Callable[[Unpickler], Any]] = {
    codes.PROTO: _protocol, codes.FRAME: _frame, codes.MARK: _mark, codes.POP: _pop, codes.POP_MARK: lambda u: u.pop_mark(),
    codes.DUP: lambda u: u.push(u.stack[-1]),
    codes.NONE: lambda u: u.push(None), codes.NEWTRUE: lambda u: u.push(True), codes.NEWFALSE: lambda u: u.push(False),
    codes.EMPTY_LIST: lambda u: u.push([]), codes.EMPTY_DICT: lambda u: u.push({}), codes.EMPTY_TUPLE: lambda u: u.push(()),
    codes.EMPTY_SET: lambda u: u.push([]),
    codes.INT: lambda u: _decimal(u, u.line()), codes.LONG: lambda u: _decimal(u, u.line()), codes.FLOAT: lambda u: u.push(float(u.line())),
    codes.BININT: lambda u: u.push(u.number("<i")), codes.BININT1: lambda u: u.push(u.number("<B")), codes.BININT2: lambda u: u.push(u.number("<H")),
    codes.LONG1: lambda u: _long(u, u.number("<B")), codes.LONG4: lambda u: _long(u, u.number("<i")),
    codes.BINFLOAT: lambda u: u.push(u.number(">d")),
    codes.STRING: lambda u: u.push(_quoted(u.line())), codes.UNICODE: lambda u: u.push(u.line().decode("raw-unicode-escape")),
    codes.BINUNICODE: _sized("<I", _utf8), codes.SHORT_BINUNICODE: _sized("<B", _utf8), codes.BINUNICODE8: _sized("<Q", _utf8),
    codes.BINBYTES: _sized("<I", bytes), codes.SHORT_BINBYTES: _sized("<B", bytes), codes.BINBYTES8: _sized("<Q", bytes),
    codes.BINSTRING: _sized("<i", _text), codes.SHORT_BINSTRING: _sized("<B", _text), codes.BYTEARRAY8: _sized("<Q", bytes),
    codes.GLOBAL: lambda u: u.name(u.line().decode(), u.line().decode()), codes.STACK_GLOBAL: lambda u: u.name(*_take_last(u, 2)),
    codes.INST: _instance, codes.OBJ: _object,
    codes.REDUCE: lambda u: _call_last(u, 2), codes.NEWOBJ: lambda u: _call_last(u, 2), codes.NEWOBJ_EX: lambda u: _call_last(u, 3),
    codes.BUILD: _build,
    codes.PERSID: lambda u: u.persist(u.line().decode()), codes.BINPERSID: lambda u: u.persist(*_take_last(u, 1)),
    codes.GET: lambda u: _recall(u, _memo_key(u.line())), codes.BINGET: lambda u: _recall(u, u.number("<B")),
    codes.LONG_BINGET: lambda u: _recall(u, u.number("<I")),
    codes.PUT: lambda u: _memoize(u, _memo_key(u.line())), codes.BINPUT: lambda u: _memoize(u, u.number("<B")),
    codes.LONG_BINPUT: lambda u: _memoize(u, u.number("<I")), codes.MEMOIZE: lambda u: _memoize(u, len(u.memo)),
    codes.APPEND: lambda u: u.add_items(list(_take_last(u, 1))), codes.APPENDS: lambda u: u.add_items(u.pop_mark()),
    codes.ADDITEMS: lambda u: u.add_items(u.pop_mark()), codes.FROZENSET: lambda u: u.push(u.pop_mark()),
    codes.SETITEM: lambda u: u.set_items(list(_take_last(u, 2))), codes.SETITEMS: lambda u: u.set_items(u.pop_mark()),
    codes.LIST: lambda u: u.push(u.pop_mark()), codes.DICT: _dict, codes.TUPLE: lambda u: u.push(tuple(u.pop_mark())),
    codes.TUPLE1: lambda u: u.push(_take_last(u, 1)), codes.TUPLE2: lambda u: u.push(_take_last(u, 2)),
    codes.TUPLE3: lambda u: u.push(_take_last(u, 3)),
}
OPCODES = {code[0]: handler for code, handler in _HANDLERS.items()}  # EXT1/2/4 and out-of-band buffers are left out: refused
