"""`Table`, arrays checked and converted as by Keras; `Feed`, a table on the device, cut into batches."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import psutil
import scipy.sparse
import tensorflow as tf

from toolkit import _checks, _tensorflow

RowNumbers = npt.NDArray[np.int64]

SHARED_BYTES = 1_000_000  # smaller arrays are copied: it costs nothing


@dataclass(frozen=True, eq=False)
class Table:
    """Arrays with one row an example, checked, in the dtypes in which Keras would feed them."""

    structure: Any  # x, (x, y) or (x, y, sample_weight), as `train_step` receives them
    leaves: list[Any]  # the arrays, CSR matrices and Nones of the structure, in its order

    def __len__(self) -> int:
        return int(next(leaf for leaf in self.leaves if leaf is not None).shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(part.nbytes for leaf in self.leaves for part in parts_of(leaf))

    @property
    def sparse(self) -> bool:
        """Whether there is a CSR matrix among the leaves."""
        return any(scipy.sparse.issparse(leaf) for leaf in self.leaves)

    def take(self, rows: slice) -> "Table":
        """Return rows that lie one after another; they share the memory."""
        leaves = [None if leaf is None else _slice_rows(leaf, rows) for leaf in self.leaves]
        return Table(keras.tree.pack_sequence_as(self.structure, leaves), leaves)

    def unpack(self) -> tuple[Any, Any, Any]:
        """Return x, y and sample_weight."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(self.structure)
        return x, y, sample_weight

    def signature(self, batch_size: int) -> list[tuple[tf.TensorSpec, ...]]:
        """Describe what `Feed.tensors_for` gives for batches of a size, or less."""
        return [
            _batches_signature(leaf, batch_size) if scipy.sparse.issparse(leaf) else _signature(leaf, None)
            for leaf in self.leaves
        ]

    def cut(
        self,
        tensors: Sequence[tuple[tf.Tensor, ...]],
        order: tf.Tensor,
        i: Any,
        in_order: bool = False,
        as_words: bool = False,
    ) -> list[tuple[tf.Tensor, ...]]:
        """Take a batch, inside a graph.

        Args:
            tensors: What `Feed.tensors_for` gives for `order`.
            order: Row numbers, shape `(batches, batch_size)`.
            i: The number of the batch.
            in_order: Whether each row number is one more than the one before, which spares a copy.
            as_words: Whether to take bytes by fours. A GPU can, but has no kernel that takes single ones:
                without XLA, TensorFlow would fetch the whole tensor back to the host at each step.
        """
        take = _slice if in_order else tf.gather
        take_parts = functools.partial(_take_words, take) if as_words else take
        return [
            _cut_sparse(parts, i)
            if scipy.sparse.issparse(leaf)
            else tuple(take_parts(part, order[i]) for part in parts)
            for leaf, parts in zip(self.leaves, tensors, strict=True)
        ]

    def cut_signature(self, size: int | None = None) -> list[tuple[tf.TensorSpec, ...]]:
        """Describe what `cut` gives for a batch of a size (None: any)."""
        return [
            (tf.TensorSpec((None, 2), tf.int64), tf.TensorSpec((None,), _tensor_dtype(leaf)))
            if scipy.sparse.issparse(leaf)
            else _signature(leaf, size)
            for leaf in self.leaves
        ]

    def pack(self, batch: Sequence[tuple[tf.Tensor, ...]], size: Any) -> Any:
        """Make of what `cut` gave the structure that Keras itself would feed."""
        leaves = [
            tf.SparseTensor(*parts, (size, leaf.shape[1]))
            if scipy.sparse.issparse(leaf)
            else next(iter(parts), None)
            for leaf, parts in zip(self.leaves, batch, strict=True)
        ]
        return keras.tree.pack_sequence_as(self.structure, leaves)

    def spec(self) -> Any:
        """Return the structure of a batch of any size, as `keras.KerasTensor`."""
        leaves = [
            None
            if leaf is None
            else keras.KerasTensor(
                (None, *leaf.shape[1:]), _tensor_dtype(leaf).name, sparse=scipy.sparse.issparse(leaf)
            )
            for leaf in self.leaves
        ]
        return keras.tree.pack_sequence_as(self.structure, leaves)


class Feed:
    """A table on the device; what two feeds share lies there once."""

    def __init__(self, table: Table, share: bool, uploaded: dict[int, tuple[tf.Tensor, ...]]) -> None:
        self.table = table
        dense = [leaf for leaf in table.leaves if not scipy.sparse.issparse(leaf)]
        new = [leaf for leaf in dense if id(leaf) not in uploaded]
        wanted, free = sum(part.nbytes for leaf in new for part in parts_of(leaf)), free_bytes()
        if wanted > free:
            raise ValueError(
                f"The data must fit the device's free memory, {free:,} bytes; stream them with model.fit. "
                f"Received: {wanted:,} bytes"
            )
        for leaf in new:
            uploaded[id(leaf)] = upload(leaf, share)
        self.tensors = [uploaded.get(id(leaf), ()) for leaf in table.leaves]
        self.kept: dict[Any, list[tuple[tf.Tensor, ...]]] = {}  # by the order of the rows

    def tensors_for(
        self, order: RowNumbers, batch_size: int, fixed: bool = False
    ) -> list[tuple[tf.Tensor, ...]]:
        """Return the tensors from which `Table.cut` takes the batches of an order.

        A CSR matrix is laid anew for each order, on the host: so a batch is a slice of it, which costs a
        graph much less than to gather its entries.

        Args:
            order: Row numbers, shape `(batches, size)`.
            batch_size: The most that the size can be: it decides on types.
            fixed: Whether the order comes again: then the batches are kept.
        """
        if not self.table.sparse:
            return self.tensors
        key = order.shape, order.tobytes()
        if key in self.kept:
            return self.kept[key]
        tensors = [
            _lay_batches(leaf, order, batch_size) if scipy.sparse.issparse(leaf) else parts
            for leaf, parts in zip(self.table.leaves, self.tensors, strict=True)
        ]
        if fixed:
            self.kept[key] = tensors
        return tensors

    def release(self) -> None:
        """Free the device's memory now; traced functions refer to the feed and would keep it for a while."""
        self.tensors = []
        self.kept = {}


def upload(leaf: Any, share: bool = False) -> tuple[tf.Tensor, ...]:
    """Make tensors of an array or CSR matrix, without a copy where it may be shared and can be."""
    return tuple(_to_device(part, share) for part in parts_of(leaf))


def _to_device(part: npt.NDArray[Any], share: bool) -> tf.Tensor:
    can_be_shared = (
        share
        and part.nbytes >= SHARED_BYTES
        and part.ctypes.data % 64 == 0  # or TensorFlow would end the process
        and part.dtype.kind in "iuf"
        and part.flags.c_contiguous
        and part.flags.writeable
        and not tf.config.list_logical_devices("GPU")
    )
    if can_be_shared:
        return tf.experimental.dlpack.from_dlpack(part.__dlpack__())
    return tf.convert_to_tensor(part)


def free_bytes() -> int:
    """Return the free memory of the device that TensorFlow computes on."""
    if tf.config.list_logical_devices("GPU"):
        return int(_tensorflow.gpu_memory() - tf.config.experimental.get_memory_info("GPU:0")["current"])
    return int(psutil.virtual_memory().available)


def parts_of(leaf: Any) -> tuple[npt.NDArray[Any], ...]:
    """Return the arrays that make up a leaf: three of a CSR matrix, one of an array, none of None."""
    if leaf is None:
        return ()
    return (leaf.data, leaf.indices, leaf.indptr) if scipy.sparse.issparse(leaf) else (leaf,)


def _slice_rows(leaf: Any, rows: slice) -> Any:
    if not scipy.sparse.issparse(leaf):
        return leaf[rows]
    start, stop, _ = rows.indices(leaf.shape[0])
    bounds = leaf.indptr[start : stop + 1]
    entries = slice(bounds[0], bounds[-1])
    part = type(leaf)((stop - start, leaf.shape[1]), dtype=leaf.dtype)
    part.data, part.indices, part.indptr = leaf.data[entries], leaf.indices[entries], bounds - bounds[0]
    return part


def _tensor_dtype(array: Any) -> tf.DType:
    return tf.string if array.dtype.kind in "OUS" else tf.as_dtype(array.dtype)


def _slice(tensor: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    start, size = [indices[0], *[0] * (tensor.shape.rank - 1)], tf.shape(indices, tf.int64)[0]
    return tf.ensure_shape(
        tf.slice(tensor, start, [size, *tensor.shape[1:]]), (indices.shape[0], *tensor.shape[1:])
    )


def _take_words(take: Callable[..., tf.Tensor], tensor: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Take rows of small integers as words of four bytes, where a row is made up of such."""
    dtype, row = tensor.dtype, tensor.shape[1:]
    together = 4 // dtype.size if dtype.is_integer and dtype.size < 4 else 1
    if together == 1 or not row.num_elements() or row.num_elements() % together:
        return take(tensor, indices)
    words = tf.bitcast(tf.reshape(tensor, (-1, row.num_elements() // together, together)), tf.int32)
    return tf.reshape(tf.bitcast(take(words, indices), dtype), (indices.shape[0] or -1, *row))


def _signature(leaf: Any, rows: int | None) -> tuple[tf.TensorSpec, ...]:
    return tuple(tf.TensorSpec((rows, *part.shape[1:]), _tensor_dtype(part)) for part in parts_of(leaf))


def _coordinate_dtype(leaf: Any, batch_size: int) -> Any:
    """Return a type that takes little room; a batch has the int64 that TensorFlow wants."""
    return np.uint16 if max(leaf.shape[1], batch_size) < 1 << 16 else leaf.indices.dtype


def _batches_signature(leaf: Any, batch_size: int) -> tuple[tf.TensorSpec, ...]:
    return (
        tf.TensorSpec((None, 2), tf.as_dtype(_coordinate_dtype(leaf, batch_size))),
        tf.TensorSpec((None,), _tensor_dtype(leaf)),
        tf.TensorSpec((None,), tf.int64),
    )


def _lay_batches(leaf: Any, order: RowNumbers, batch_size: int) -> tuple[tf.Tensor, ...]:
    """Lay the batches of a CSR matrix one after another.

    Returns:
        Co-ordinates within the batch, shape `(entries, 2)`; values, shape `(entries,)`; and where each batch
        begins among them, shape `(batches + 1,)`.
    """
    rows = leaf[order.reshape(-1)]
    coordinates = np.empty((rows.nnz, 2), _coordinate_dtype(leaf, batch_size))
    numbers = (np.arange(order.size) % order.shape[1]).astype(coordinates.dtype)
    coordinates[:, 0] = np.repeat(numbers, np.diff(rows.indptr))
    coordinates[:, 1] = rows.indices
    bounds = rows.indptr[:: order.shape[1]].astype(np.int64)
    values = tf.convert_to_tensor(rows.data)
    del rows  # before there is a second copy of the coordinates
    return tf.convert_to_tensor(coordinates), values, tf.convert_to_tensor(bounds)


def _cut_sparse(batches: tuple[tf.Tensor, ...], i: Any) -> tuple[tf.Tensor, tf.Tensor]:
    coordinates, values, bounds = batches
    # Brackets would trace many more operations, and `tf.slice` has no kernel for small integers on a GPU.
    begin, end = tf.slice(bounds, [i], [1]), tf.slice(bounds, [i + 1], [1])
    entries = tf.strided_slice(coordinates, begin, end)
    return tf.cast(entries, tf.int64), tf.strided_slice(values, begin, end)


def to_table(x: Any, y: Any, sample_weight: Any, prefix: str = "") -> Table:
    """Check the arrays and pack them as `model.fit` does."""
    if x is None or (isinstance(x, dict | list | tuple) and not x):
        raise ValueError(f"`{prefix}x` must be an array, or hold some. Received: {x}")
    x, y, sample_weight = (
        None if value is None else _convert(prefix + name, value)
        for name, value in (("x", x), ("y", y), ("sample_weight", sample_weight))
    )
    if sample_weight is not None and keras.tree.is_nested(y):
        sample_weight = _weights_by_output(prefix, y, sample_weight)
    structure = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
    table = Table(structure, keras.tree.flatten(structure))
    first = next((leaf for leaf in keras.tree.flatten(x) if leaf is not None), None)
    if first is None:
        raise ValueError(f"`{prefix}x` must be an array, or hold some. Received: {x}")
    for name, value in (("x", x), ("y", y), ("sample_weight", sample_weight)):
        for leaf in keras.tree.flatten(value):
            if leaf is not None and leaf.shape[0] != first.shape[0]:
                raise ValueError(
                    f"`{prefix}{name}` must have as many rows as x, n={first.shape[0]}. "
                    f"Received: {leaf.shape[0]}"
                )
    if not first.shape[0]:
        raise ValueError(f"`{prefix}x` must have at least one row. Received: none")
    return table


def _weights_by_output(prefix: str, y: Any, sample_weight: Any) -> Any:
    """Give each output its weights, as Keras does."""
    if not keras.tree.is_nested(sample_weight):
        if sample_weight.ndim > 1 and sample_weight.shape[1:] != (1,):
            raise ValueError(
                f"`{prefix}sample_weight` must have shape (n,) for several outputs, or be an array for each. "
                f"Received: shape {sample_weight.shape}"
            )
        return keras.tree.map_structure(lambda _: sample_weight, y)
    try:
        keras.tree.assert_same_structure(y, sample_weight)
    except ValueError as error:
        raise ValueError(
            f"`{prefix}sample_weight` must have the structure of y: an array an output. Received: another"
        ) from error
    return sample_weight


def _convert(name: str, value: Any) -> Any:
    """Return a structure with its arrays as NumPy or CSR, floats in Keras's float type."""
    if isinstance(value, dict):
        return {key: _convert(f"{name}[{key!r}]", item) for key, item in value.items()}
    if is_structure(value):
        items = [_convert(f"{name}[{i}]", item) for i, item in enumerate(value)]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return None if value is None else _convert_leaf(name, value)


def is_structure(value: Any) -> bool:
    """Tell a list or tuple of arrays from one of numbers."""
    if not isinstance(value, list | tuple):
        return False
    return hasattr(value, "_fields") or any(
        item is None
        or isinstance(item, dict)
        or len(getattr(item, "shape", ()))
        or (isinstance(item, list | tuple) and is_structure(item))
        for item in value
    )


def _convert_leaf(name: str, value: Any) -> Any:
    if isinstance(value, tf.SparseTensor):
        if value.shape.rank != 2:
            raise TypeError(f"`{name}` must have two axes to be sparse. Received: shape {value.shape}")
        rows, columns = value.indices.numpy().T
        shape = tuple(value.shape)
        leaf = scipy.sparse.coo_array((value.values.numpy(), (rows, columns)), shape).tocsr()
    elif scipy.sparse.issparse(value):
        leaf = value.tocsr()
    elif hasattr(value, "iloc"):  # pandas
        leaf = _from_pandas(value)
    elif isinstance(value, list | tuple) or (
        hasattr(value, "__array__") and not isinstance(value, tf.RaggedTensor)
    ):
        try:
            leaf = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"`{name}` must have rows of equal length. Received: {error}") from error
    else:
        raise TypeError(
            f"`{name}` must be an array, a SciPy sparse matrix, or a list or dict of such; "
            "use model.fit for datasets and generators, and for ragged tensors. "
            f"Received: {type(value).__name__}"
        )
    if leaf.dtype == object and all(isinstance(item, str | bytes) for item in leaf.flat):
        return leaf.astype(np.bytes_ if isinstance(leaf.flat[0], bytes) else str)
    floating = leaf.dtype.kind == "f" or leaf.dtype.name == "bfloat16"
    if not (floating or leaf.dtype.kind in "biuUS") or not leaf.ndim:
        raise ValueError(
            f"`{name}` must be an array of numbers. Received: shape {leaf.shape}, dtype {leaf.dtype}"
        )
    if floating and leaf.dtype.name != keras.config.floatx():
        with np.errstate(over="ignore"):  # what overflows is refused as infinite
            leaf = leaf.astype(tf.as_dtype(keras.config.floatx()).as_numpy_dtype)
    return leaf


def _from_pandas(value: Any) -> Any:
    """Convert like Keras: a Series becomes a column."""
    if value.ndim == 1:
        return value.to_numpy()[:, None]
    kinds = {getattr(dtype, "kind", "O") for dtype in value.dtypes}
    return (value.astype(keras.config.floatx()) if "f" in kinds else value).to_numpy()


def with_class_weights(table: Table, class_weight: Any) -> Table:
    """Return a table whose rows are weighted by their classes, as `model.fit` does it.

    Raises:
        ValueError: There are sample weights, several outputs or none, or a weight that is no number.
    """
    x, y, sample_weight = table.unpack()
    if sample_weight is not None:
        raise ValueError("`class_weight` must be None where `sample_weight` is given. Received: both")
    if y is None or keras.tree.is_nested(y):
        raise ValueError(
            "`class_weight` must go with a single array of labels. Received: none or several outputs"
        )
    if not isinstance(class_weight, dict):
        raise ValueError(f"`class_weight` must be a dict of class to weight. Received: {class_weight!r}")
    for key, weight in class_weight.items():
        if isinstance(key, str) or key != int(key):
            raise ValueError(f"`class_weight` must have whole numbers as keys. Received: {key!r}")
        if not math.isfinite(weight):
            raise ValueError(f"`class_weight` must be finite. Received: {weight} for class {key}")
    classes = y.argmax(axis=-1) if y.ndim > 1 and y.shape[-1] != 1 else y.reshape(len(y), -1)[:, 0]
    classes = np.round(classes).astype(np.int64)
    weights = np.ones(len(y), keras.config.floatx())
    for key, weight in class_weight.items():
        weights[classes == key] = weight
    structure = (x, y, weights)
    return Table(structure, keras.tree.flatten(structure))


def take_rows(x: Any, rows: RowNumbers) -> Any:
    """Take rows of arrays as they were passed: a model may scale by them in float64."""
    if isinstance(x, dict):
        return {key: take_rows(item, rows) for key, item in x.items()}
    if is_structure(x):
        return [take_rows(item, rows) for item in x]
    if x is None or hasattr(x, "iloc"):
        return x if x is None else x.iloc[rows]
    return x.tocsr()[rows] if scipy.sparse.issparse(x) else np.asarray(x)[rows]


def refuse_non_finite(table: Table, prefix: str = "", skip_y: bool = False) -> None:
    """Refuse NaN and infinity: the error names the first place."""
    for name, value in zip(("x", "y", "sample_weight"), table.unpack(), strict=True):
        if value is not None and not (skip_y and name == "y"):
            for path, leaf in keras.tree.flatten_with_path(value):
                where = "".join(f"[{key!r}]" for key in path)
                if leaf is not None:
                    _checks.refuse_non_finite(f"{prefix}{name}{where}", leaf)
