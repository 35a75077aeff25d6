"""The one decorator of every kernel: compiled without the interpreter lock, cached on disk, never with fast-math."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.resources import files
from typing import Any, TypeVar

from numba import njit
from numba.core import config
from numba.extending import overload

Function = TypeVar("Function", bound=Callable[..., Any])


def _storey_hash() -> str:
    """A hash of every file whose code or constants can end up in a kernel's machine code."""
    sources = [*files("npreparam.kernels").iterdir(), files("npreparam") / "_shapes.py"]
    digest = hashlib.sha256()
    for source in sorted((source for source in sources if source.name.endswith(".py")), key=lambda source: source.name):
        digest.update(source.read_bytes())
    return digest.hexdigest()


STOREY = _storey_hash()


def kernel(function: Function, error_model: str = "python") -> Function:
    """Compile `function`; a cached compilation is used again only while no file of this storey has changed.

    Numba stamps a cached kernel with its own source file alone, yet a kernel contains the intrinsics, constants and record layouts of its
    neighbours: after a change to one of those, a stale kernel would read memory by the wrong layout.
    """
    if config.DISABLE_JIT:
        return function
    try:
        compiled = njit(nogil=True, cache=True, fastmath=False, error_model=error_model)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache folder can be written
        return njit(nogil=True, fastmath=False, error_model=error_model)(function)
    file = compiled._cache._cache_file
    file._source_stamp = (file._source_stamp, STOREY)
    return compiled


def loop(function: Function) -> Function:
    """A kernel whose divisions by 0 give infinities and NaN instead of an error, so that loops with divisions become vector code."""
    return kernel(function, "numpy")


def by_type(plain: Function, special: Function, marker: type[Any]) -> Function:
    """A function that is `special` where its last but one argument is a `marker` (a NamedTuple), else `plain`: chosen when a kernel is compiled,
    so that a kernel contains, and a process loads, only the one it uses."""
    def choose(*args: Any) -> Any:
        return (special if isinstance(args[-2], marker) else plain)(*args)

    if not config.DISABLE_JIT:
        @overload(choose)
        def _(*args):  # type: ignore[no-untyped-def]
            chosen = special if getattr(args[-2], "instance_class", None) is marker else plain
            return lambda *args: chosen(*args)

    return choose  # type: ignore[return-value]
