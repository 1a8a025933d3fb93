"""The frame of a `.keras` file: each byte of the zip accounted for, and its JSON read."""

import json
import re
import stat
import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import IO, Any

from toolkit.saving.reasons import refuse_if

_CONFIG_BYTES = 4 << 20
_CONFIG_ITEMS = 200_000  # Python needs up to 100 bytes for an item of JSON that takes 2
_MEMBERS = re.compile(r"metadata\.json|config\.json|model\.weights\.h5|assets(/(?!\.\.?(/|$))[\w .>+-]+)+")


def check_zip(file: IO[bytes], size: int) -> None:
    """Account for each byte: members one after the other, as they are, then their list, and no more."""
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
    fits = not comment and start + listed == end and listed <= 1 << 20
    refuse_if(not fits, "its list of members is damaged, or something was added to it")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    position = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        name, flags, kind = member.orig_filename, member.flag_bits, stat.S_IFMT(member.external_attr >> 16)
        file.seek(member.header_offset)
        header = file.read(30)
        name_bytes, extra_bytes = struct.unpack("<2H", header[26:])
        extras = (file.read(name_bytes + extra_bytes)[name_bytes:], member.extra)
        stored = member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size
        plain = not member.comment and all(extra[:2] in (b"", b"\1\0") for extra in extras)
        as_usual = not flags & ~0x800 and header[6:8] == struct.pack("<H", flags)
        for right, wrong in (
            (_MEMBERS.fullmatch(name), "is no part of a model"),
            (kind in (0, stat.S_IFREG), "is a link or a device"),
            (stored, "is compressed; Keras never does that"),
            (as_usual, "is encrypted, or written in another way than Keras does"),
            (plain, "carries a comment or something else"),
            (member.header_offset == position, "stands after something that belongs to nothing"),
        ):
            refuse_if(not right, f"it holds {name[:80]!r}, which {wrong}")
        position += 30 + name_bytes + extra_bytes + member.file_size
    refuse_if(position != start, "something stands in it that belongs to no member")
    names = Counter(member.filename for member in members)
    for name in ("metadata.json", "config.json", "model.weights.h5", *names):
        refuse_if(not names[name], f"it has no {name}")
        refuse_if(names[name] > 1, f"it holds {name} twice")


def json_object(path: Path) -> dict[str, Any]:
    """Read a file of JSON that holds an object and gives each key once."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        refuse_if(len(names := dict(pairs)) < len(pairs), f"{path.name} gives one key twice")
        return names

    refuse_if(path.stat().st_size > _CONFIG_BYTES, f"{path.name} is longer than 4 MB")
    text = path.read_bytes()
    items = sum(map(text.count, (b",", b"[", b"{")))
    refuse_if(items > _CONFIG_ITEMS, f"{path.name} has more than {_CONFIG_ITEMS:,} items")
    try:
        value = json.loads(text, object_pairs_hook=once)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is no JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} holds no object")
    return value
