"""Files as read-only bytes, and files that are written whole or not at all."""

from __future__ import annotations

import mmap
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from npreparam._errors import FormatError

PART = ".part"  # how the name of a file ends that is being written


def contents(path: Path) -> memoryview:
    """The bytes of a file, mapped rather than read: pages that are never looked at cost nothing."""
    try:
        with open(path, "rb", opener=_open_regular) as file:
            size = os.fstat(file.fileno()).st_size
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except (OSError, ValueError) as error:
        raise FormatError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not size:
        raise FormatError("the file is empty")
    return memoryview(mapped)


def _open_regular(path: str, flags: int) -> int:
    """A pipe or device would block or never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("not a regular file")
    return os.open(path, flags)


@contextmanager
def told_of(path: Path) -> Iterator[None]:
    """A FormatError raised inside becomes one line that begins with the path."""
    try:
        yield
    except FormatError as error:
        # a file's own names may hold line breaks or terminal commands
        line = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(error))
        raise FormatError(f"{path}: {line}") from None
    except UnicodeDecodeError as error:  # protobuf decodes text only when it is looked at
        raise FormatError(f"{path}: holds text that is not UTF-8: {error.object[:40]!r}") from None


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A file under a temporary name beside `path`, which replaces `path` when everything is on disk; after an error nothing is left."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)  # nobody else's, in any thread or process
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
