"""Members of a zip archive, checked before they are trusted."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Any

from npreparam._errors import FormatError

LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # Source: PKWARE, APPNOTE.TXT, section 4.3.7
MAX_MEMBERS = 2**20
MAX_EXPANSION = 100  # times the file's size, beyond 64 MiB: a bomb expands a thousandfold, weights hardly at all
FREE_EXPANSION = 2**26
UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError, ValueError, OverflowError, OSError)


class Archive:
    """An index of a zip file in memory whose names, places and sizes make sense."""

    def __init__(self, content: memoryview) -> None:
        self.content = content
        try:
            with zipfile.ZipFile(_View(content)) as file:
                members = file.infolist()
        except UNREADABLE as error:
            raise FormatError(f"is no usable zip archive: {error}") from None
        if len(members) > MAX_MEMBERS:
            raise FormatError(f"has {len(members)} members; the limit is {MAX_MEMBERS}")
        self.members: dict[str, zipfile.ZipInfo] = {}
        for member in members:
            self._add(member)
        self.checked = any(member.CRC for member in members)  # torch.save can leave all checksums out: set_crc32_options(False)
        self._check_places()
        expanded = sum(m.file_size for m in self.members.values() if m.compress_type)
        if expanded > max(FREE_EXPANSION, MAX_EXPANSION * len(content)):
            raise FormatError(f"expands from {len(content)} to {expanded} bytes, as zip bombs do; if it is honest, store it uncompressed")

    def _add(self, member: zipfile.ZipInfo) -> None:
        name = member.filename
        if name in self.members:
            raise FormatError(f"member {name[:80]!r} occurs twice")
        if name.startswith("/") or "\\" in name or ":" in name.split("/")[0] or ".." in name.split("/") or "\0" in member.orig_filename:
            raise FormatError(f"member {name[:80]!r} has a path outside the archive")
        if member.flag_bits & 1:
            raise FormatError(f"member {name[:80]!r} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(f"member {name[:80]!r} is compressed by method {member.compress_type}; stored and deflated members can be read")
        self.members[name] = member

    def _check_places(self) -> None:
        """Members must not overlap: overlapping ones are how a small file names the same bytes a million times."""
        end = 0
        for name, member in sorted(self.members.items(), key=lambda item: item[1].header_offset):
            start = member.header_offset
            if start < end:
                raise FormatError(f"member {name[:80]!r} overlaps the one before it")
            end = self._data_start(name) + member.compress_size
            if end > len(self.content):
                raise FormatError(f"member {name[:80]!r} reaches beyond the end of the file")

    def _data_start(self, name: str) -> int:
        start = self.members[name].header_offset
        header = bytes(self.content[max(start, 0) : start + LOCAL_HEADER.size])
        if start < 0 or len(header) < LOCAL_HEADER.size or header[:4] != b"PK\3\4":
            raise FormatError(f"member {name[:80]!r} does not begin where the directory says")
        *_, name_size, extra_size = LOCAL_HEADER.unpack(header)
        begin = start + LOCAL_HEADER.size
        encoding = "utf-8" if self.members[name].flag_bits & 0x800 else "cp437"
        if bytes(self.content[begin : begin + name_size]) != self.members[name].orig_filename.encode(encoding):
            raise FormatError(f"member {name[:80]!r} has another name at its own place")
        return begin + name_size + extra_size

    def read(self, name: str) -> memoryview:
        """The member's bytes, in place where they are stored uncompressed; its CRC-32 is checked if the archive has any."""
        member, start = self.members[name], self._data_start(name)
        data = self.content[start : start + member.compress_size]
        if member.compress_type == zipfile.ZIP_DEFLATED:
            data = memoryview(_inflate(data, member.file_size, name))
        if len(data) != member.file_size:
            raise FormatError(f"member {name[:80]!r} has {len(data)} bytes; {member.file_size} were announced")
        if self.checked and zlib.crc32(data) != member.CRC:
            raise FormatError(f"member {name[:80]!r} is damaged: its CRC-32 is {zlib.crc32(data):08x}, not {member.CRC:08x}")
        return data


def _inflate(data: memoryview, size: int, name: str) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return inflater.decompress(data, size + 1)
    except (zlib.error, OverflowError, MemoryError) as error:
        raise FormatError(f"member {name[:80]!r} cannot be decompressed: {error}") from None


class _View(io.RawIOBase):
    """A memoryview as a seekable file, without copying it."""

    def __init__(self, content: memoryview) -> None:
        self.content, self.position = content, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = offset + (0, self.position, len(self.content))[whence]
        if self.position < 0:
            raise OSError("a position before the file")
        return self.position

    def readinto(self, buffer: Any) -> int:
        part = self.content[self.position : self.position + len(buffer)]
        buffer[: len(part)] = part
        self.position += len(part)
        return len(part)
