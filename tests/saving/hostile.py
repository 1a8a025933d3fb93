"""Files that were made to harm whoever loads them, by kind."""

import io
import json
import stat
import struct
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from toolkit import load

ORDER = ["metadata.json", "config.json", "model.weights.h5"]


def parts_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(path, members, compression=zipfile.ZIP_STORED):
    """Write members (name or ZipInfo, content) as Keras does, whatever they are."""
    with zipfile.ZipFile(path, "w", compression) as archive, pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # of names that come twice
        for name, content in members:
            archive.writestr(name, content)
    return path


def edited(change):
    """Make a file whose config was changed by `change(config, its first Dense layer)`."""

    def write(path, good):
        members = parts_of(good)
        config = json.loads(members["config.json"])
        by_name = {layer["config"]["name"]: layer for layer in config["config"]["layers"]}
        first = next(layer for layer in by_name.values() if layer["class_name"] == "Dense")
        config = change(config, first) or config
        text = config if isinstance(config, bytes) else json.dumps(config).encode()
        write_zip(path, [(name, {**members, "config.json": text}[name]) for name in ORDER])

    return write


def replaced(name, **keys):
    """Change keys of the first Dense layer's config, or put another object in its place."""

    def change(config, dense):
        dense.update({"class_name": name, "registered_name": None, **keys})

    return edited(change)


def with_setting(**settings):
    return edited(lambda config, dense: dense["config"].update(settings))


def with_layer(layer, *, shape=(None, 3)):
    """Put a serialized layer in front of the first Dense layer."""

    def change(config, dense):
        value = {
            "module": "keras.layers",
            "registered_name": None,
            "build_config": {"input_shape": shape},
            **layer,
        }
        value["config"] = {"name": "front", **value["config"]}
        position = config["config"]["layers"].index(dense)
        config["config"]["layers"].insert(position, value)

    return edited(change)


def with_member(name, content=b"", **attributes):
    def write(path, good):
        info = zipfile.ZipInfo("placeholder")
        info.filename = name
        for key, value in attributes.items():
            setattr(info, key, value)
        write_zip(path, [*parts_of(good).items(), (info, content)])

    return write


def without(name):
    return lambda path, good: write_zip(path, [part for part in parts_of(good).items() if part[0] != name])


def with_part(name, content):
    return lambda path, good: write_zip(path, list({**parts_of(good), name: content}.items()))


def with_bytes(change):
    return lambda path, good: path.write_bytes(change(good.read_bytes()))


def with_weights(change):
    """Change the HDF5 file: `change(file)`."""

    def write(path, good):
        members = parts_of(good)
        buffer = io.BytesIO(members["model.weights.h5"])
        with h5py.File(buffer, "r+") as file:
            change(file)
        write_zip(path, [(name, {**members, "model.weights.h5": buffer.getvalue()}[name]) for name in ORDER])

    return write


def flagged(offset, bits):
    """Set bits in the flags of the first member, here and in the list of members."""

    def change(content):
        content, listed = bytearray(content), content.rindex(b"PK\5\6")
        start = struct.unpack("<L", content[listed + 16 : listed + 20])[0]
        content[6 + offset] |= bits
        content[start + 8 + offset] |= bits
        return content

    return with_bytes(change)


def overlapped(path, good):
    """A second entry of the list points at the data of the first."""
    write_zip(path, [*parts_of(good).items(), ("assets/a", b"")])
    content = bytearray(path.read_bytes())
    listed = content.rindex(b"PK\1\2")
    content[listed + 16 : listed + 28] = content[
        content.index(b"PK\1\2") + 16 : content.index(b"PK\1\2") + 28
    ]
    content[listed + 42 : listed + 46] = bytes(4)
    path.write_bytes(content)


def renamed_in_the_list(content):
    start = content.index(b"PK\1\2")
    return content[:start] + content[start:].replace(b"config.json", b"konfig.json")


def junk_in_the_list(content):
    """Four bytes more in the list of members, and its size says so."""
    end = content.rindex(b"PK\5\6")
    size = struct.unpack("<L", content[end + 12 : end + 16])[0] + 4
    return content[:end] + b"junk" + content[end : end + 12] + struct.pack("<L", size) + content[end + 16 :]


def replace_weight(shape=None, **options):
    def change(file):
        del file["layers/dense/vars/0"]
        file["layers/dense/vars"].create_dataset("0", shape=shape or (3, 4), dtype="f4", **options)

    return with_weights(change)


def big_dense(config, dense):
    """A matrix of 14 GB; vectors of its sizes are stored."""
    *_, last = config["config"]["layers"]
    dense["config"]["units"] = 60_000
    last["build_config"]["input_shape"] = [None, 60_000]
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "InputLayer":
            layer["config"]["batch_shape"] = [None, 60_000]
    dense["build_config"]["input_shape"] = [None, 60_000]


def remade(make, change):
    """Change the config of another model: `change(its last layer, config)`."""

    def write(path, good):
        make().save(path)
        members = parts_of(path)
        config = json.loads(members["config.json"])
        change(config["config"]["layers"][-1], config)
        text = json.dumps(config).encode()
        write_zip(path, [(name, {**members, "config.json": text}[name]) for name in members])

    return write


def words_of(vocabulary, **options):
    """Make a model that looks words up, whose words are an asset."""

    def make():
        layer = layers.StringLookup(**options)
        layer.set_vocabulary(vocabulary)
        return keras.Sequential([keras.Input((1,), dtype="string"), layer])

    return make


def with_asset(content):
    """Change the words of a model: `content` in place of its asset, or no asset."""

    def write(path, good):
        words_of(["a", "b"])().save(path)
        members = parts_of(path)
        (name,) = (each for each in members if each.startswith("assets"))
        members[name] = content
        write_zip(path, [part for part in members.items() if part[1] is not None])

    return write


def with_hdf5(change):
    """Change the bytes of the HDF5 file."""
    return lambda path, good: with_part("model.weights.h5", change(parts_of(good)["model.weights.h5"]))(
        path, good
    )


def with_attribute(name, value):
    return with_weights(lambda file: file["layers/dense/vars"].attrs.__setitem__(name, value))


def with_user_block(content):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file, h5py.File(io.BytesIO(content)) as good:
        for name in good:
            good.copy(name, file)
    return buffer.getvalue()


def long_extra(path, good):
    """40 kB behind what says the sizes of a large member."""
    write_zip(path, parts_of(good).items())
    content, junk = path.read_bytes(), struct.pack("<2HQ", 1, 40_008, 0) + bytes(40_000)
    listed = content.index(b"PK\1\2")
    name_bytes = struct.unpack("<H", content[26:28])[0]
    front = content[:28] + struct.pack("<H", len(junk)) + content[30 : 30 + name_bytes] + junk
    entries, position = b"", listed
    while content[position : position + 4] == b"PK\1\2":
        name, extra = struct.unpack("<2H", content[position + 28 : position + 32])
        entry = content[position : position + 46 + name + extra]
        place = struct.unpack("<L", entry[42:46])[0]
        entries += entry[:42] + struct.pack("<L", place + len(junk) * bool(place)) + entry[46:]
        position += len(entry)
    end = content[position : position + 16] + struct.pack("<L", listed + len(junk)) + content[position + 20 :]
    path.write_bytes(front + content[30 + name_bytes : listed] + entries + end)


def one_bit_of_a_weight(path, good):
    content = bytearray(good.read_bytes())
    with h5py.File(io.BytesIO(parts_of(good)["model.weights.h5"])) as file:
        content[content.index(b"\x89HDF") + file["layers/dense/vars/0"].id.get_offset()] ^= 1
    path.write_bytes(content)


def sparse(path, good):
    with path.open("wb") as file:
        file.truncate(3 << 30)


def node_without_tensor(path, good):
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.RepeatVector(2)(inputs))
    model.save(path)
    members = parts_of(path)
    config = json.loads(members["config.json"])
    layer = config["config"]["layers"][1]
    value = {"class_name": "__tensor__", "config": {"value": [[1.0]], "dtype": "float32"}}
    layer["config"]["n"] = 10**6
    layer["inbound_nodes"][0]["args"] = [value, "__keras_tensor__"]
    write_zip(path, [(name, {**members, "config.json": json.dumps(config)}[name]) for name in ORDER])


def compiled_with(name, **settings):
    def change(config, dense):
        metric = {"module": "keras.metrics", "class_name": name, "config": settings, "registered_name": None}
        config["compile_config"]["metrics"] = [metric]

    return edited(change)


def link_to_itself(file):
    file["layers/dense/again"] = file["layers"]


def virtual(file):
    layout = h5py.VirtualLayout((3, 4), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "data", shape=(3, 4))
    del file["layers/dense/vars/0"]
    file.create_virtual_dataset("layers/dense/vars/0", layout)


def linked(link):
    def change(file):
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = link

    return with_weights(change)


def words(count):
    return "\n".join(map(str, range(count))).encode()


ZEROS = bytes(4 << 20)
PYTHON_LAMBDA = {"class_name": "__lambda__", "config": {"value": ["4wEA", None, None]}}
FLAT = {"module": "keras.layers", "class_name": "ReLU", "config": {}, "registered_name": None}
SPEC = {
    "class_name": "__typespec__",
    "spec_name": "TensorSpec",
    "module": "tensorflow",
    "registered_name": None,
}
NUMPY = {"class_name": "__numpy__", "config": {"value": ["a"], "dtype": "S1000000000"}}
HOSTILE = {
    "text": (with_bytes(lambda _: b"hello" * 9), "no .keras file"),
    "empty": (with_bytes(lambda _: b""), "no .keras file"),
    "hdf5 by another name": (
        with_bytes(lambda _: b"\x89HDF\r\n\x1a\n" + bytes(99)),
        "an .h5 file by another name",
    ),
    "junk before": (with_bytes(lambda content: b"#!/bin/sh\n" + content), "something was added"),
    "junk after": (with_bytes(lambda content: content + b"junk"), "something after its end"),
    "comment of the zip": (
        with_bytes(lambda content: content[:-2] + b"\x04\0junk"),
        "something after its end",
    ),
    "junk between members": (
        with_bytes(lambda content: content.replace(b"PK\3\4", b"junkPK\3\4", 2)[4:]),
        "something was added|belongs to nothing",
    ),
    "junk in the list of members": (with_bytes(junk_in_the_list), "central directory"),
    "a program": (with_member("setup.py", b"print()"), "'setup.py', which is no part"),
    "path traversal": (with_member("../evil"), "'../evil', which is no part"),
    "path traversal in assets": (with_member("assets/../../evil"), "which is no part"),
    "absolute path": (with_member("/tmp/evil"), "which is no part"),
    "backslashes": (with_member("assets\\..\\evil"), "which is no part"),
    "drive letter": (with_member("C:evil"), "which is no part"),
    "name with a NUL": (with_member("assets/a\0.txt"), "which is no part"),
    "symbolic link": (
        with_member("assets/link", b"/etc/passwd", external_attr=(stat.S_IFLNK | 0o777) << 16),
        "is a link",
    ),
    "device": (with_member("assets/null", external_attr=(stat.S_IFCHR | 0o777) << 16), "is a link"),
    "folder": (with_member("assets/folder/"), "is no part|a link or a folder"),
    "comment of a member": (with_member("assets/a", comment=b"junk"), "carries a comment"),
    "extra field": (
        with_member("assets/a", extra=b"\xfe\xca\4\0junk"),
        "carries a comment or something else",
    ),
    "encrypted": (flagged(0, 1), "encrypted"),
    "data descriptor": (flagged(0, 8), "encrypted, or written in another way"),
    "two configs": (with_member("config.json", b"{}"), "holds config.json twice"),
    "two members, one content": (overlapped, "belongs to nothing"),
    "other name in the list": (with_bytes(renamed_in_the_list), "no part of a model"),
    "compressed": (
        lambda path, good: write_zip(path, parts_of(good).items(), zipfile.ZIP_DEFLATED),
        "is compressed",
    ),
    "compressed bomb": (
        with_member("assets/bomb", ZEROS * 100, compress_type=zipfile.ZIP_DEFLATED),
        "is compressed",
    ),
    "bzip2 bomb": (with_member("assets/bomb", ZEROS, compress_type=zipfile.ZIP_BZIP2), "is compressed"),
    "no config": (without("config.json"), "has no config.json"),
    "no weights": (without("model.weights.h5"), "has no model.weights.h5"),
    "no metadata": (without("metadata.json"), "has no metadata.json"),
    "weights for unpickling": (with_member("model.weights.npz"), "which is no part"),
    "a hundred thousand members": (
        lambda path, good: write_zip(path, [(f"assets/{n}", b"") for n in range(30_000)]),
        "list of members is damaged, or something was added",
    ),
    "config that is no JSON": (with_part("config.json", b"{'a': 1}"), "config.json is no JSON"),
    "config that is a list": (with_part("config.json", b"[]"), "config.json holds no object"),
    "config that is no text": (with_part("config.json", b"\xff\xfe\xfa"), "config.json is no JSON"),
    "key twice": (
        with_part("config.json", b'{"class_name": "Dense", "class_name": "Lambda"}'),
        "one key twice",
    ),
    "nested JSON": (
        with_part("config.json", b'{"a":' + b"[" * 90_000 + b"]" * 90_000 + b"}"),
        "nested too deeply",
    ),
    "deep JSON": (with_part("config.json", b'{"a":' + b"[" * 500 + b"]" * 500 + b"}"), "nested too deeply"),
    "padded config": (with_part("config.json", b"{" + b" " * (5 << 20) + b"}"), "describes no model"),
    "a million lists": (
        with_part("config.json", b'{"a":[' + b"[]," * 900_000 + b"[]]}"),
        "describes no model",
    ),
    "huge number": (with_part("config.json", b'{"a":' + b"9" * 100_000 + b"}"), "no JSON|digits"),
    "no version": (with_part("metadata.json", b"{}"), "no version"),
    "newer format": (with_part("metadata.json", b'{"keras_version": "4.0.1"}'), "newer than the 3"),
    "Lambda": (replaced("Lambda"), "Lambda, which holds code"),
    "Lambda by its module": (
        replaced("Lambda", module="keras.src.layers.core.lambda_layer"),
        "Lambda, which holds code",
    ),
    "Lambda in a wrapper": (
        with_layer(
            {
                "class_name": "TimeDistributed",
                "config": {"layer": {"module": "keras.layers", "class_name": "Lambda", "config": {}}},
            }
        ),
        "Lambda, which holds code",
    ),
    "Lambda of the old format": (
        edited(lambda config, dense: (dense.pop("module"), dense.update(class_name="Lambda"))[2:]),
        "Lambda",
    ),
    "layer of the old format": (
        edited(lambda config, dense: (dense.pop("module"),)[1:]),
        "neither Keras's own",
    ),
    "lambda as activation": (with_setting(activation=PYTHON_LAMBDA), "holds code"),
    "SavedModel from a path": (replaced("TFSMLayer"), "TFSMLayer, which holds code"),
    "PyTorch pickle": (replaced("TorchModuleWrapper"), "TorchModuleWrapper, which holds code"),
    "JAX code": (replaced("JaxLayer"), "JaxLayer, which holds code"),
    "type of TensorFlow": (
        with_setting(activation={**SPEC, "config": []}),
        "__typespec__.*neither Keras's own",
    ),
    "os.system": (
        replaced("function", module="os", config="system"),
        "'system', which is neither Keras's own",
    ),
    "subprocess": (replaced("Popen", module="subprocess"), "'Popen', which is neither"),
    "download": (
        with_setting(activation={"module": "keras.utils", "class_name": "function", "config": "get_file"}),
        "'get_file', which",
    ),
    "function of Keras as a class": (
        replaced("plot_model", module="keras.utils"),
        "'plot_model', which is neither",
    ),
    "data set": (replaced("load_data", module="keras.datasets.mnist"), "'load_data', which is neither"),
    "whole application": (replaced("ResNet50", module="keras.applications"), "'ResNet50', which is neither"),
    "deserializer": (
        with_setting(
            activation={"module": "keras.activations", "class_name": "function", "config": "deserialize"}
        ),
        "'deserialize', which",
    ),
    "class inside Keras": (
        replaced("KerasFileEditor", module="keras.src.saving.file_editor"),
        "'KerasFileEditor', which",
    ),
    "module that is not loaded": (replaced("X", module="keras.src.antigravity"), "'X', which is neither"),
    "custom class": (replaced("Evil", registered_name="package>Evil"), "'Evil', which is neither"),
    "class without a name": (replaced(None), "without a name"),
    "14 GB of weights": (
        edited(big_dense),
        r"could not be loaded.*must match.*shape=\(60000, 60000\)",
    ),
    "other units": (with_setting(units=2_000), "does not build"),
    "large embedding": (
        lambda path, good: in_front(
            ("Embedding", {"input_dim": 10**9, "output_dim": 1}, (None, 3)),
            ("Reshape", {"target_shape": [3]}, (None, 3, 1)),
        )(path, good),
        "expected 1 variables, but received 0 variables",
    ),
    "size lent by an empty array": (
        lambda path, good: with_weights(lambda file: file.create_dataset("x", (0, 300_000_000), "f4"))(
            path, good
        ),
        "differ: /x|not store",
    ),
    "40 kB behind an extra field": (long_extra, "carries a comment or something else"),
    "one bit of a weight": (one_bit_of_a_weight, "model.weights.h5 has another CRC"),
    "sparse file of 3 GB": (sparse, "no .keras file"),
    "something more in the metadata": (
        with_part("metadata.json", b'{"keras_version": "3.0.1", "more": "junk"}'),
        "metadata.json",
    ),
    "version that says more": (
        with_part("metadata.json", b'{"keras_version": "3.0.1 and junk"}'),
        "names no version",
    ),
    "date of 40 kB": (
        with_part("metadata.json", b'{"keras_version": "3.0.1", "date_saved": "%s"}' % (b"a" * 40_000)),
        "names no date",
    ),
    "user block": (with_hdf5(with_user_block), "something in front of it"),
    "tail of the weights": (with_hdf5(lambda content: content + bytes(40_000)), "that belong to nothing"),
    "attribute": (with_attribute("more", "junk"), "an attribute 'more'"),
    "attribute of numbers": (with_attribute("dtype", np.ones(1_000)), "an attribute 'dtype'"),
    "attribute of a text": (with_attribute("dtype", "junk"), "an attribute 'dtype'"),
    "name of 40 kB": (with_attribute("name", "a" * 40_000), "an attribute 'name'"),
    "empty group": (
        with_weights(lambda file: [file.create_group(f"more{number}") for number in range(20)]),
        "a group at /more.* that holds nothing",
    ),
    "words that are not there": (with_asset(None), "differ: assets/|could not be loaded"),
    "words with other line ends": (with_asset(b"\r\n[UNK]\r\na\r\nb"), "differ: assets/|could not be"),
    "words with a line end of Unicode": (
        with_asset("\n[UNK]\na\x85b".encode()),
        "differ: assets/|could not be",
    ),
    "word twice": (with_asset(b"[UNK]\na\na"), "could not be loaded|differ"),
    "empty words behind": (with_asset(b"[UNK]\na\nb\n\n\n"), "differ: assets/"),
    "words that are no text": (with_asset(b"[UNK]\n\xff\xfe"), "could not be loaded|is refused"),
    "loss in place of a model": (
        with_part(
            "config.json",
            b'{"module": "keras.losses", "class_name": "MeanSquaredError", "config": {},'
            b' "registered_name": null}',
        ),
        "describes no model",
    ),
    "layer in place of a model": (
        with_part(
            "config.json",
            b'{"module": "keras.layers", "class_name": "ReLU", "config": {}, "registered_name": null}',
        ),
        "describes no model",
    ),
    "state of an optimizer that is not there": (
        edited(lambda config, dense: config.__setitem__("compile_config", None)),
        "differ: /optimizer",
    ),
    "layer called without input": (node_without_tensor, "calls a layer on no input"),
    "array of a type with a size": (with_setting(activation=NUMPY), "a type that is no number"),
    "vocabulary from a path": (
        with_layer({"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}),
        "does not build.*vocabulary file",
    ),
    "a million words": (
        with_member("assets/vocabulary.txt", words(260_000)),
        "differ: assets/vocabulary.txt",
    ),
    "weights that are no HDF5": (
        with_part("model.weights.h5", b"hello"),
        "file signature not found|Unable to",
    ),
    "weights cut off": (
        lambda path, good: with_part("model.weights.h5", parts_of(good)["model.weights.h5"][:-4000])(
            path, good
        ),
        "truncated|Unable to|not store",
    ),
    "external link": (linked(h5py.ExternalLink("/etc/passwd", "/")), "ExternalLink"),
    "soft link": (linked(h5py.SoftLink("/layers/dense/vars/1")), "SoftLink"),
    "hard link": (
        with_weights(lambda file: file.__setitem__("a", file["layers/dense/vars/0"])),
        "two places",
    ),
    "cycle of links": (with_weights(link_to_itself), "two places"),
    "external data": (replace_weight(external=[("/etc/passwd", 0, 48)]), "from another file"),
    "virtual data": (with_weights(virtual), "from another file"),
    "compressed weights": (
        replace_weight((1 << 15, 1 << 15), chunks=(1 << 10, 1 << 10), compression="gzip"),
        "does not store all of",
    ),
    "weights that are not there": (replace_weight((1 << 15, 1 << 15)), "does not store all of"),
    "weights that are text": (
        with_weights(lambda file: file.__setitem__("x", "hello")),
        "no numbers at /x",
    ),
    "type in place of weights": (
        with_weights(lambda file: file.__setitem__("x", np.dtype("f4"))),
        "is no array",
    ),
    "weight too few": (
        with_weights(lambda file: file.__delitem__("layers/dense/vars/0")),
        "not stored|expected|differ",
    ),
    "weight too many": (
        with_weights(lambda file: file.__setitem__("layers/more/vars/0", np.ones(3))),
        "differ: /layers/more",
    ),
    "weight of another shape": (replace_weight((4, 3), data=np.ones((4, 3), "f4")), "shape|differ"),
    "weight of another type": (
        with_weights(
            lambda file: (
                file.__delitem__("layers/dense/vars/0"),
                file.__setitem__("layers/dense/vars/0", np.ones((3, 4))),
            )
        ),
        "differ|not stored",
    ),
}


# What a file says can be right, and what it does take all time or all memory.


def in_front(*parts, shape=(None, 3)):
    """Put layers in front of the first Dense layer, which must get the three columns it was built for."""

    def change(config, dense):
        position = config["config"]["layers"].index(dense)
        config["config"]["layers"][position:position] = [
            {
                "module": "keras.layers",
                "class_name": name,
                "registered_name": None,
                "config": {"name": f"front{number}", **settings},
                "build_config": {"input_shape": shape},
            }
            for number, (name, settings, shape) in enumerate(parts)
        ]

    return edited(change)


def repeated(*parts):
    """Give each column to `parts` as rows, and take means of what comes out."""
    rows = ("RepeatVector", {"n": 4}, (None, 3))
    return in_front(rows, *parts, ("GlobalAveragePooling1D", {}, (None, 4, 3)))


def optimized_by(name, layer_name="a" * 40, **settings):
    """Compile with an optimizer, for a model whose first Dense layer has a long name."""

    def change(config, dense):
        dense["config"]["name"] = layer_name
        config["compile_config"]["optimizer"] = {
            "module": "keras.optimizers",
            "class_name": name,
            "config": {"learning_rate": 0.1, **settings},
            "registered_name": None,
        }

    return edited(change)


def matched_policy(config, dense):
    """A map of policies whose keys are regular expressions."""
    dense["config"]["name"] = "a" * 40 + "!"
    dense["config"]["dtype"] = {
        "module": "keras.dtype_policies",
        "class_name": "DTypePolicyMap",
        "registered_name": None,
        "config": {
            "default_policy": "float32",
            "policy_map": {
                "(a|aa)+$": {
                    "module": "keras",
                    "class_name": "DTypePolicy",
                    "config": {"name": "float32"},
                    "registered_name": None,
                }
            },
        },
    }


def heap_in_a_circle(path, good):
    """The list of free places of a group's names, which the library follows, ends where it starts."""
    members = parts_of(good)
    content = bytearray(members["model.weights.h5"])
    position = content.index(b"HEAP")
    free, place = struct.unpack("<2Q", content[position + 16 : position + 32])
    content[place + free : place + free + 8] = struct.pack("<Q", free)
    members["model.weights.h5"] = bytes(content)
    write_zip(path, [(name, members[name]) for name in ORDER])


def calling_each_other(depth, fan):
    """Functional models, each of which calls the one before `fan` times."""

    def write(path, good):
        model = keras.Sequential([keras.Input((2,)), layers.ReLU()])
        inner = None
        for level in range(depth):
            tensor = inputs = keras.Input((2,))
            for _ in range(fan if inner else 1):
                tensor = (inner or layers.ReLU())(tensor)
            inner = keras.Model(inputs, tensor, name=f"level{level}")
            if level == 1:
                inner.save(path)
        del model
        members = parts_of(path)
        config = json.loads(members["config.json"])
        for _ in range(2, depth):
            outer = json.loads(members["config.json"])
            (called,) = (each for each in outer["config"]["layers"] if each["class_name"] == "Functional")
            name = called["name"]
            called.update({"config": config["config"], "build_config": None})
            called["config"]["name"] = name
            config = outer
        write_zip(path, [(name, {**members, "config.json": json.dumps(config)}[name]) for name in ORDER])

    return write


def flat(count):
    """A Sequential model of many layers; Keras builds it anew for each of them."""

    def change(config, dense):
        config["config"]["layers"][1:1] = [
            {**FLAT, "config": {"name": f"flat{number}"}} for number in range(count)
        ]

    return edited(change)


def many_metrics(config, dense):
    metric = {"module": "keras.metrics", "class_name": "AUC", "registered_name": None}
    config["compile_config"]["metrics"] = [
        {**metric, "config": {"num_thresholds": 1_900_000, "name": f"auc{number}"}} for number in range(200)
    ]


def rearranged(pattern):
    inputs = keras.Input((3,), batch_size=2)
    return keras.Model(inputs, keras.ops.rearrange(inputs, pattern))


HEAVY = {
    "heap in a circle": heap_in_a_circle,
    "regular expression of Muon": optimized_by("Muon", exclude_layers=["(a|aa)+$"]),
    "regular expression of a map of policies": edited(matched_policy),
    "models that call each other": calling_each_other(30, 3),
    "vocabulary of 400 million": remade(
        words_of(["a"], max_tokens=9, pad_to_max_tokens=True, output_mode="multi_hot"),
        lambda layer, config: layer["config"].update(max_tokens=4 * 10**8),
    ),
    "AUC of many labels": compiled_with("AUC", num_thresholds=50_000, multi_label=True, num_labels=10_000),
    "AUC of many thresholds": compiled_with("AUC", num_thresholds=10**9),
    "many metrics of many thresholds": edited(many_metrics),
    "matrix of a metric": compiled_with("MeanIoU", num_classes=40_000),
    "mean of a billion columns": with_layer(
        {"class_name": "Normalization", "config": {"mean": 0.0, "variance": 1.0}}, shape=(None, 10**9)
    ),
    "states of a billion rows": with_layer(
        {"class_name": "LSTM", "config": {"units": 4, "stateful": True}}, shape=(10**9, 1, 1)
    ),
    "loop unrolled a million times": remade(
        lambda: keras.Sequential([keras.Input((9, 1)), layers.LSTM(2, unroll=True)]),
        lambda layer, config: [
            config["config"]["layers"][0]["config"].update(batch_shape=[None, 10**6, 1]),
            layer["build_config"].update(input_shape=[None, 10**6, 1]),
        ],
    ),
    "brackets of a pattern": remade(
        lambda: rearranged("a b -> b a"),
        lambda layer, config: layer["inbound_nodes"][0]["args"].__setitem__(1, "(" * 60_000 + "a b -> b a"),
    ),
    "thousands of layers in a row": flat(20_000),
    "row repeated a billion times": in_front(
        ("RepeatVector", {"n": 10**9}, (None, 3)), ("GlobalAveragePooling1D", {}, (None, 10**9, 3))
    ),
    "rows made larger": repeated(("UpSampling1D", {"size": 10**9}, (None, 4, 3))),
    "rows with a border": repeated(("ZeroPadding1D", {"padding": 10**9}, (None, 4, 3))),
    "image of a billion pixels": in_front(
        ("Reshape", {"target_shape": [1, 1, 3]}, (None, 3)),
        ("Resizing", {"height": 40_000, "width": 40_000}, (None, 1, 1, 3)),
        ("GlobalAveragePooling2D", {}, (None, 40_000, 40_000, 3)),
    ),
    "image made larger": in_front(
        ("Reshape", {"target_shape": [1, 1, 3]}, (None, 3)),
        ("UpSampling2D", {"size": 40_000}, (None, 1, 1, 3)),
        ("GlobalAveragePooling2D", {}, (None, 40_000, 40_000, 3)),
    ),
    "image with a border": in_front(
        ("Reshape", {"target_shape": [1, 1, 3]}, (None, 3)),
        ("ZeroPadding2D", {"padding": 40_000}, (None, 1, 1, 3)),
        ("GlobalAveragePooling2D", {}, (None, 80_001, 80_001, 3)),
    ),
    "categories by the billion": in_front(
        ("CategoryEncoding", {"num_tokens": 10**10}, (None, 3)),
        ("Reshape", {"target_shape": [-1, 1]}, (None, 10**10)),
        ("GlobalAveragePooling1D", {}, (None, 10**10, 1)),
        ("RepeatVector", {"n": 3}, (None, 1)),
        ("Reshape", {"target_shape": [3]}, (None, 3, 1)),
    ),
}


def outcome(path, weights):
    """Load a file: "refused", "equal" (loaded with equal weights) or "wrong"."""
    try:
        loaded = load(path)
    except ValueError:
        return "refused"
    same = len(weights) == len(loaded.weights) and all(map(np.array_equal, weights, loaded.weights))
    return "equal" if same else "wrong"
