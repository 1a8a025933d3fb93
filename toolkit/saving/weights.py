"""The numbers in `model.weights.h5`: they lie in the file, as they are, and nothing else does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from toolkit.saving.reasons import refuse_if

_UNUSED, _UNUSED_AN_OBJECT = 8_192, 64  # bytes of a file that the HDF5 library leaves free, at most

_NAME = 1_000  # characters of the name of a layer

Stored = dict[str, tuple[tuple[int, ...], int]]  # by name of the array: its shape, and bytes of an item


def check_weights(weights: Path) -> Stored:
    """Return what is stored; raise unless it is arrays of numbers, each in a place of its own.

    HDF5 can hold much that is no weight: links, data of other files, several names of one array, and any
    bytes before, between and behind what the library reads. So the bytes of all objects are added up.
    """
    stored: Stored = {}
    used = objects = numbers = 0
    with h5py.File(weights) as file:
        for name, item in _objects(file):
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
                stored[name] = item.shape, item.dtype.itemsize
                numbers += item.nbytes
        refuse_if(file.userblock_size, "model.weights.h5 has something in front of it")
    size = weights.stat().st_size
    refuse_if(numbers > size, "model.weights.h5 stores one number for several arrays")
    rest = size - used - numbers
    too_much = rest > _UNUSED + _UNUSED_AN_OBJECT * objects
    refuse_if(too_much, f"model.weights.h5 has {rest:,} bytes that belong to nothing")
    return stored


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
    known = text and size <= _NAME
    refuse_if(not known, f"model.weights.h5 has an attribute {key!r} at {where} that no layer reads")
    return size


def _check_array(name: str, array: Any) -> None:
    refuse_if(array.external or array.is_virtual, f"model.weights.h5 takes {name} from another file")
    numbers = array.shape is not None and not array.dtype.hasobject and array.dtype.kind in "biufV"
    refuse_if(not numbers, f"model.weights.h5 has no numbers at {name}")
    whole = array.chunks is None and array.id.get_storage_size() == array.nbytes
    refuse_if(not whole, f"model.weights.h5 does not store all of {name}, or compressed it")
