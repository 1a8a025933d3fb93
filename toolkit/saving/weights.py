"""The numbers in `model.weights.h5`: they lie in the file, as they are, and all of them arrive."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from toolkit.saving.reasons import refuse_if


def datasets(root: Any) -> Iterator[tuple[str, Any]]:
    """Yield each array of an HDF5 file with its name. Links other than hard ones raise; so do cycles."""
    groups, seen = [("", root)], {h5py.h5o.get_info(root.id).addr}
    while groups:
        name, group = groups.pop()
        for key in group:
            where = f"{name}/{key}"
            link = type(group.get(key, getlink=True))
            refuse_if(link is not h5py.HardLink, f"model.weights.h5 has a link at {where} ({link.__name__})")
            item = group[key]
            address = h5py.h5o.get_info(item.id).addr
            refuse_if(address in seen, f"model.weights.h5 has {where} in two places")
            seen.add(address)
            if isinstance(item, h5py.Group):
                groups.append((where, item))
            elif isinstance(item, h5py.Dataset):
                yield where, item
            else:
                raise ValueError(f"model.weights.h5 has something at {where} that is no array")


def check_weights(weights: Path, size: int) -> Counter[tuple[tuple[int, ...], int]]:
    """Return the shapes and item sizes of what is stored; raise unless it lies in the file, as it is."""
    stored: Counter[tuple[tuple[int, ...], int]] = Counter()
    total = 0
    with h5py.File(weights) as file:
        for name, array in datasets(file):
            refuse_if(array.external or array.is_virtual, f"model.weights.h5 takes {name} from another file")
            numbers = array.shape is not None and not array.dtype.hasobject and array.dtype.kind in "biufV"
            refuse_if(not numbers, f"model.weights.h5 has no numbers at {name}")
            whole = array.chunks is None and array.id.get_storage_size() == array.nbytes
            refuse_if(not whole, f"model.weights.h5 does not store all of {name}, or compressed it")
            stored[array.shape, array.dtype.itemsize] += 1
            total += array.nbytes
    refuse_if(total > size, "model.weights.h5 stores one number for several arrays")
    return stored


def check_arrived(model: Any, weights: Path, apart: tuple[str, ...]) -> None:
    """Raise unless the model's weights, written once more, are what is stored; do not ask for some."""
    again = weights.with_name("again.weights.h5")
    model.save_weights(again)
    differ = sorted({name for name, _ in _contents(weights) ^ _contents(again) if not name.startswith(apart)})
    refuse_if(differ, f"weights in the file and in the model that it builds differ: {', '.join(differ[:5])}")


def _contents(weights: Path) -> set[tuple[str, Any]]:
    """Return the name of each array with what tells it from another, one in memory at a time."""
    with h5py.File(weights) as file:
        return {
            (name, (array.shape, array.dtype, hashlib.sha256(array[...]).digest()))
            for name, array in datasets(file)
        }
