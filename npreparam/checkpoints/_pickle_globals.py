"""The few functions that a pickle may ask for, rewritten to build inert records; every other name stays a name.

Nothing is imported on a file's behalf, so a file can name `os.system` as often as it likes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from npreparam._errors import FormatError
from npreparam.checkpoints._dtypes import Array, dtype_of, vector
from npreparam.checkpoints._storage import DTYPES, STORAGES, StridedTensor, is_count

NUMPY_CODE = re.compile(r"\?|b1|[bBhHiIqQefdFD]|[iu][1248]|f[248]|c8|c16")
Arguments = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A module-level name that the file mentions; never looked up."""

    name: str


@dataclass(eq=False, slots=True)
class Placeholder:
    """An object of a class that is not built: its name, and the state the file would have given it."""

    name: str
    state: Any = None


@dataclass(eq=False, slots=True)
class NumpyType:
    """A NumPy dtype under construction: its code, and the byte order that comes later."""

    code: str
    order: str = "|"

    def dtype(self) -> np.dtype[Any]:
        """The dtype of plain numbers that it stands for."""
        return np.dtype(self.code).newbyteorder(self.order if self.order in "<>" else "=")

    def set_state(self, state: Any) -> None:
        """(version, byte order, ...) as NumPy writes it."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise FormatError("a NumPy dtype has a state without a byte order")
        self.order = state[1]


@dataclass(eq=False, slots=True)
class NumpyArray:
    """A NumPy array under construction: empty until its state comes."""

    array: Array | None = None

    def set_state(self, state: Any) -> None:
        """(version, shape, dtype, is Fortran order, bytes) as NumPy writes it; arrays of objects or text stay without an array."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise FormatError("a NumPy array has a state that is not (version, shape, dtype, order, data)")
        _, shape, kind, fortran, data = state
        if isinstance(kind, NumpyType):
            self.array = numpy_array(data, kind, shape, "F" if fortran is True else "C")


def numpy_array(data: Any, kind: Any, shape: Any, order: Any) -> Array:
    """An array of plain numbers from its bytes."""
    if not (isinstance(data, bytes) and isinstance(kind, NumpyType) and isinstance(shape, tuple) and all(map(is_count, shape)) and len(shape) <= 64
            and order in ("C", "F")):
        raise FormatError("a NumPy array must consist of bytes, a dtype of plain numbers, a shape and an order")
    dtype = kind.dtype()
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise FormatError(f"a NumPy array of shape {shape} and dtype {dtype} has {len(data)} bytes")
    try:
        array = vector(data, dtype, "a NumPy array").reshape(shape, order=order)
    except ValueError as error:
        raise FormatError(f"a NumPy array of shape {shape} is not usable: {error}") from None
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def _mapping(arguments: Arguments) -> dict[Any, Any]:
    """OrderedDict, defaultdict and Counter as dicts; items are (key, value) pairs or a dict."""
    items = [a for a in arguments if isinstance(a, (list, tuple, dict))]
    result: dict[Any, Any] = {}
    for source in items:
        for pair in source.items() if isinstance(source, dict) else source:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise FormatError("a mapping is built from something that is not (key, value) pairs")
            set_item(result, *pair)
    return result


def set_item(target: dict[Any, Any], key: Any, value: Any) -> None:
    """target[key] = value for keys whose hashing is harmless, each at most once."""
    flat = (str, bytes, int, float, bool, type(None), Named, Placeholder, StridedTensor)  # the records hash by identity
    if not isinstance(key, flat) and not (isinstance(key, tuple) and all(isinstance(part, flat) for part in key)):
        raise FormatError(f"a mapping has a {type(key).__name__} as a key")
    if key in target:
        raise FormatError(f"the key {str(key)[:80]!r} is set twice in one mapping")
    target[key] = value


def _tensor(arguments: Arguments, dtype: str | None = None) -> StridedTensor:
    flags = arguments[-1] if len(arguments) > (7 if dtype else 6) else None
    flags = flags if isinstance(flags, dict) else {}
    return StridedTensor(*arguments[:4], dtype=dtype_of(dtype) if dtype else None, conjugate=bool(flags.get("conj")), negate=bool(flags.get("neg")))


def _tensor_v3(arguments: Arguments) -> StridedTensor:
    kind = arguments[6]
    if not isinstance(kind, Named) or kind.name not in DTYPES:
        raise FormatError("a tensor of an unknown number format")
    return _tensor(arguments, DTYPES[kind.name])


def _tuple(arguments: Arguments) -> tuple[Any, ...]:
    if not isinstance(arguments[0], (list, tuple)):
        raise FormatError("a tuple is built from something that is not a sequence")
    return tuple(arguments[0])


def _numpy_type(arguments: Arguments) -> NumpyType | Placeholder:
    code = arguments[0]
    return NumpyType(code) if isinstance(code, str) and NUMPY_CODE.fullmatch(code) else Placeholder("numpy.dtype")


def _numpy_scalar(arguments: Arguments) -> Array | Placeholder:
    kind, data = arguments
    return numpy_array(data, kind, (), "C") if isinstance(kind, NumpyType) else Placeholder("numpy scalar")


def _encode(arguments: Arguments) -> bytes:
    """How Python 2's protocols carry bytes."""
    text, encoding = arguments
    if not isinstance(text, str) or encoding != "latin1":
        raise FormatError("text is to become bytes by something else than latin1")
    try:
        return text.encode("latin1")
    except UnicodeEncodeError as error:
        raise FormatError(f"text cannot become bytes: {error}") from None


Rule = tuple[int, int, Callable[[Arguments], Any]]  # fewest and most arguments, and what is built from them

CALLS: dict[str, Rule] = {
    "torch._utils._rebuild_tensor": (4, 4, _tensor),
    "torch._utils._rebuild_tensor_v2": (6, 7, _tensor),
    "torch._utils._rebuild_tensor_v3": (7, 8, _tensor_v3),
    "torch._utils._rebuild_parameter": (3, 3, lambda arguments: arguments[0]),
    "torch._utils._rebuild_parameter_with_state": (4, 4, lambda arguments: arguments[0]),
    "torch.nn.parameter.Parameter": (1, 2, lambda arguments: arguments[0]),
    "torch.Size": (1, 1, _tuple),
    "builtins.bytes": (0, 0, lambda arguments: b""),  # protocol 2's empty bytes
    "builtins.dict": (0, 1, _mapping),
    "collections.OrderedDict": (0, 1, _mapping),
    "collections.defaultdict": (0, 2, _mapping),
    "collections.Counter": (0, 1, _mapping),
    "_codecs.encode": (2, 2, _encode),
    "numpy.dtype": (1, 3, _numpy_type),
    "numpy.core.multiarray._reconstruct": (3, 3, lambda arguments: NumpyArray()),
    "numpy.core.multiarray.scalar": (2, 2, _numpy_scalar),
    "numpy.core.numeric._frombuffer": (4, 4, lambda arguments: NumpyArray(numpy_array(*arguments))),
}
HARMLESS = CALLS.keys() | STORAGES.keys() | DTYPES.keys() | {"numpy.ndarray"}


def canonical(module: str, name: str) -> str:
    """One spelling for what Python 2, Python 3, NumPy 1 and NumPy 2 call differently, fit to be printed."""
    module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module).replace("numpy._core", "numpy.core")
    return "".join(letter if letter.isprintable() else "?" for letter in f"{module}.{name}")


def call(target: Any, arguments: Any) -> Any:
    """What a pickle gets that asks for target(*arguments): a record of ours, or a placeholder."""
    if not isinstance(target, (Named, Placeholder)) or not isinstance(arguments, tuple):
        raise FormatError(f"a {type(target).__name__} is to be called with a {type(arguments).__name__}")
    if isinstance(target, Placeholder) or target.name not in CALLS:
        return Placeholder(target.name)
    fewest, most, build = CALLS[target.name]
    if not fewest <= len(arguments) <= most:
        raise FormatError(f"{target.name} is to be called with {len(arguments)} arguments")
    return build(arguments)
