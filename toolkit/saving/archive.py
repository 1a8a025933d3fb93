"""The frame of a `.keras` file: a zip of which a byte is not accounted for is refused."""

import json
import os
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from typing import IO, Any

from toolkit.saving.reasons import refuse_if

_MEMBERS = re.compile(r"metadata\.json|config\.json|model\.weights\.h5|assets(/(?!\.\.?(/|$))[\w .>+-]+)+")
_CHUNK = 1 << 20
_LIST_BYTES = 1 << 20


def members(file: IO[bytes]) -> dict[str, tuple[int, int]]:
    """Return where each member starts in a file, and its size.

    Raises:
        ValueError: The file is not whole, or holds anything but the members of a model, one after the other,
            and their list.
    """
    listed, end = list_of(file)
    places, position = dict[str, tuple[int, int]](), 0
    file.seek(0)
    for member in listed:
        refuse_if(
            member.header_offset != position,
            f"it holds {member.orig_filename[:80]!r}, which stands after something that belongs to nothing",
        )
        position += _check_header(file, member)
        places[member.filename] = position, member.file_size
        position += member.file_size
        left, crc = member.file_size, 0
        while left and (chunk := file.read(min(_CHUNK, left))):
            crc = zlib.crc32(chunk, crc)
            left -= len(chunk)
        refuse_if(left or crc != member.CRC, f"it is damaged: {member.filename} has another CRC")
    refuse_if(position != end, "something stands in it that belongs to no member")
    return places


def list_of(file: IO[bytes]) -> tuple[list[zipfile.ZipInfo], int]:
    """Return the list of members, in their order, and where it starts; it must end where the file does."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 98))
    tail = file.read()
    if tail[-22:-18] != b"PK\5\6":
        file.seek(0)
        refuse_if(file.read(4) == b"\x89HDF", "it is an .h5 file by another name")
        raise ValueError("it is cut off, has something after its end, or is no .keras file at all")
    listed, start, comment = struct.unpack("<2LH", tail[-10:])
    end = size - 22
    if tail[-42:-38] == b"PK\6\7" and size > 1 << 31:  # the form for files of 2 GB and more
        end -= 76
        listed, start = struct.unpack("<2Q", tail[40:56]) if tail[:4] == b"PK\6\6" else (0, 0)
    fits = not comment and start + listed == end and listed <= _LIST_BYTES
    refuse_if(not fits, "its list of members is damaged, or something was added to it")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        stored = member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size
        for right, wrong in (
            (_MEMBERS.fullmatch(member.orig_filename), "is no part of a model"),
            (kind in (0, stat.S_IFREG), "is a link or a device"),
            (stored, "is compressed; Keras never does that"),
            (not member.flag_bits & ~0x800, "is encrypted, or written in another way than Keras does"),
            (not member.comment and _plain(member.extra), "carries a comment or something else"),
        ):
            refuse_if(not right, f"it holds {member.orig_filename[:80]!r}, which {wrong}")
    names = Counter(member.filename for member in members)
    for name in ("metadata.json", "config.json", "model.weights.h5", *names):
        refuse_if(not names[name], f"it has no {name}")
        refuse_if(names[name] > 1, f"it holds {name} twice")
    return sorted(members, key=lambda member: member.header_offset), start


def _check_header(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Read what stands in front of a member, which must say what the list says, and return its bytes."""
    header = file.read(30)
    refuse_if(len(header) < 30 or header[:4] != b"PK\3\4", "its list of members is damaged")
    name_bytes, extra_bytes = struct.unpack("<2H", header[26:])
    name, extra = file.read(name_bytes), file.read(extra_bytes)
    flags, compression, _, crc = struct.unpack("<2H2L", header[6:18])
    same = (name, crc) == (member.orig_filename.encode(), member.CRC)
    as_usual = (flags, compression) == (member.flag_bits, zipfile.ZIP_STORED)
    for right, wrong in (
        (same, "has another name or CRC in front of it than in the list"),
        (as_usual, "is encrypted, or written in another way than Keras does"),
        (_plain(extra), "carries a comment or something else"),
    ):
        refuse_if(not right, f"it holds {member.orig_filename[:80]!r}, which {wrong}")
    return len(header + name + extra)


def _plain(extra: bytes) -> bool:
    """Tell whether nothing is there but the sizes and the place of a large member."""
    return not extra or (
        extra[:2] == b"\1\0"
        and extra[2:4] in (b"\x08\0", b"\x10\0", b"\x18\0")
        and len(extra) == 4 + extra[2]
    )


def json_object(name: str, content: bytes) -> dict[str, Any]:
    """Read JSON that holds an object and gives each key once."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        refuse_if(len(names := dict(pairs)) < len(pairs), f"{name} gives one key twice")
        return names

    try:
        value = json.loads(content, object_pairs_hook=once)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} is no JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"{name} holds no object")
    return value
