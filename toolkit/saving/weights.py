"""The arrays of `model.weights.h5` by name; refused where it holds anything but numbers, as they are."""

import io
from collections.abc import Iterator, Mapping
from typing import IO, Any

import h5py
import numpy as np
import numpy.typing as npt

from toolkit.saving.reasons import refuse_if

_UNUSED, _UNUSED_AN_OBJECT = 8_192, 64  # bytes of a file that the HDF5 library leaves free, at most
_NAME = 1_000  # characters of the name of a layer


class Arrays(Mapping[str, npt.NDArray[Any]]):
    """The arrays in a file, by names such as "/layers/dense/vars/0"; each is read when it is asked for.

    Args:
        file: What holds the HDF5 file.
        start: The first byte of it there.
        size: Its bytes.

    Raises:
        ValueError: It is not arrays of numbers, each in a place of its own. HDF5 can hold much that is no
            weight: links, data of other files, several names of one array, and any bytes before, between and
            behind what the library reads. So the bytes of all objects are added up.
        OSError: It is no HDF5 file.
    """

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._places = file, dict[str, tuple[int, tuple[int, ...], np.dtype[Any]]]()
        used = objects = numbers = 0
        with h5py.File(_Part(file, start, size)) as root:
            for name, item in _objects(root):
                info = h5py.h5o.get_info(item.id)
                objects += 1
                used += info.hdr.space.total
                used += sum(
                    each.index_size + each.heap_size for each in (info.meta_size.obj, info.meta_size.attr)
                )
                used += sum(_attribute_bytes(name, item, key) for key in item.attrs)
                empty = isinstance(item, h5py.Group) and not len(item) and name and not name.endswith("/vars")
                refuse_if(empty, f"model.weights.h5 has a group at {name} that holds nothing")
                if isinstance(item, h5py.Dataset):
                    _check_array(name, item)
                    place, dtype = item.id.get_offset() or 0, item.dtype
                    if item.attrs.get("dtype") == "bfloat16":  # which HDF5 does not know
                        dtype = np.dtype("bfloat16")
                    self._places[name] = start + place, item.shape, dtype
                    numbers += item.nbytes
            refuse_if(root.userblock_size, "model.weights.h5 has something in front of it")
        refuse_if(numbers > size, "model.weights.h5 stores one number for several arrays")
        rest = size - used - numbers
        too_much = rest > _UNUSED + _UNUSED_AN_OBJECT * objects
        refuse_if(too_much, f"model.weights.h5 has {rest:,} bytes that belong to nothing")

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        place, shape, dtype = self._places[name]
        array = np.empty(shape, dtype)
        self._file.seek(place)
        there = self._file.readinto(array.reshape(-1).view(np.uint8).data)  # type: ignore[attr-defined]
        refuse_if(there != array.nbytes, f"model.weights.h5 does not store all of {name}")
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class _Part(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (self._size if whence == io.SEEK_END else 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._size - self._at)]
        self._file.seek(self._start + self._at)
        self._at += len(view)
        return int(self._file.readinto(view))  # type: ignore[attr-defined]


def _objects(root: Any) -> Iterator[tuple[str, Any]]:
    """Yield groups and arrays with their names. Links other than hard ones raise; so do cycles."""
    found, seen = [("", root)], {h5py.h5o.get_info(root.id).addr}
    while found:
        name, item = found.pop()
        yield name, item
        for key in item if isinstance(item, h5py.Group) else ():
            where = f"{name}/{key}"
            link = type(item.get(key, getlink=True))
            refuse_if(link is not h5py.HardLink, f"model.weights.h5 has a link at {where} ({link.__name__})")
            child = item[key]
            address = h5py.h5o.get_info(child.id).addr
            refuse_if(address in seen, f"model.weights.h5 has {where} in two places")
            seen.add(address)
            known = isinstance(child, h5py.Group | h5py.Dataset)
            refuse_if(not known, f"model.weights.h5 has something at {where} that is no array")
            found.append((where, child))


def _attribute_bytes(where: str, item: Any, key: str) -> int:
    """Return the size of an attribute: the name of a layer, or a type that HDF5 does not know."""
    shape, dtype = item.attrs.get_id(key).shape, item.attrs.get_id(key).dtype
    text = key in ("name", "dtype") and shape == () and h5py.check_string_dtype(dtype) is not None
    size = len(item.attrs[key]) if text else 0
    known = text and size <= _NAME and (key == "name" or item.attrs[key] == "bfloat16")
    refuse_if(not known, f"model.weights.h5 has an attribute {key!r} at {where} that no layer reads")
    return size


def _check_array(name: str, array: Any) -> None:
    refuse_if(array.external or array.is_virtual, f"model.weights.h5 takes {name} from another file")
    numbers = array.shape is not None and not array.dtype.hasobject and array.dtype.kind in "biufcV"
    refuse_if(not numbers, f"model.weights.h5 has no numbers at {name}")
    whole = array.chunks is None and array.id.get_storage_size() == array.nbytes
    whole = whole and (array.nbytes == 0 or array.id.get_offset() is not None)
    refuse_if(not whole, f"model.weights.h5 does not store all of {name}, or compressed it")
    as_they_are = array.id.get_type() == h5py.h5t.py_create(array.dtype)
    refuse_if(not as_they_are, f"model.weights.h5 stores {name} in an encoding of its own")
