"""What can happen to a model file, and what must not come of it."""

import contextlib
import functools
import io
import json
import os
import random
import re
import resource
import signal
import stat
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import hypothesis
import keras
import numpy as np
import pytest
from conftest import ROOT, record_fault
from hypothesis import strategies as st
from keras import layers

import toolkit
from toolkit import _keras, load, save
from toolkit.saving import api
from toolkit.saving.reading import guards_bite

ORDER = ["metadata.json", "config.json", "model.weights.h5"]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A file that loads, and what its first weights are."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "relu"), layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((4, 3)), np.ones(4), verbose=0)
    path = save(model, tmp_path_factory.mktemp("good") / "model.keras")
    return path, [np.array(weight) for weight in model.weights]


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


# Killed while it saves


LOOP = """
import os, sys
import numpy as np, keras, toolkit
from toolkit.saving import api
from toolkit.saving.reading import guards_bite
folder, compare = sys.argv[1], api.compare
def compare_and_tell(*models):
    compare(*models)
    print(os.getpid(), -1, flush=True)  # what is left is to put the file in its place
api.compare = compare_and_tell
for line in sys.stdin:  # one process for each line, which starts where the imports are done
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        print("dead", flush=True)
        continue
    model = keras.Sequential([keras.Input((200,)), keras.layers.Dense(200), keras.layers.Dense(200)])
    model.compile("adam", "mse")
    for number in range(1, 10_000):
        model.set_weights([np.full(weight.shape, number, "float32") for weight in model.get_weights()])
        print(os.getpid(), number, flush=True)
        toolkit.save(model, folder + "/model.keras")
"""


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_any_moment_of_a_save_a_whole_file_stays(kills, tmp_path):
    random_state = random.Random(kills)
    path, lost = tmp_path / "model.keras", 0
    with subprocess.Popen(
        [sys.executable, "-c", LOOP, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        seconds = 1.0
        for kill in range(kills):
            process.stdin.write("go\n")
            process.stdin.flush()
            started, number, compared = time.perf_counter(), 0, 0
            while number < 2 or (
                kill % 2 and compared < 2
            ):  # the first save is complete: now there is a file
                child, told = map(int, process.stdout.readline().split())
                number, compared = (number, compared + 1) if told < 0 else (told, compared)
            seconds = 0.5 * seconds + 0.5 * (time.perf_counter() - started)
            time.sleep(random_state.uniform(0, 0.03 if kill % 2 else 1.5 * seconds))
            os.kill(child, signal.SIGKILL)
            for line in process.stdout:
                if line == "dead\n":
                    break
                number = max(number, int(line.split()[1]))
            try:
                values = {float(value) for weight in load(path).get_weights() for value in np.unique(weight)}
                beside = tmp_path / "model.keras.sha256"
                if beside.exists():
                    load(path, sha256=beside.read_text().split()[0])
                lost += values not in ({number}, {number - 1})
            except ValueError:
                lost += 1
        process.stdin.close()
    record_fault("kill -9 at a random moment of a save", kills, lost)
    assert lost == 0
    save(load(path), path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.keras", "model.keras.sha256"]


# A full disk


@contextlib.contextmanager
def largest_file(size):
    """Let no file of this process grow beyond `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_earlier_file(good, tmp_path):
    model = load(good[0])
    path = save(model, tmp_path / "model.keras")
    before, harmed = path.read_bytes(), 0
    sizes = np.linspace(0, len(before) - 1, 12).astype(int).tolist()
    for size in sizes:
        with largest_file(size), pytest.raises((OSError, ValueError)):
            save(model, path)
        names = sorted(each.name for each in tmp_path.iterdir())
        harmed += path.read_bytes() != before or names != ["model.keras", "model.keras.sha256"]
    record_fault("disk full at a random byte of a save", len(sizes), harmed)
    assert harmed == 0
    assert load(path).count_params() == model.count_params()


def test_a_small_disk_leaves_the_earlier_file(good, tmp_path):
    size = good[0].stat().st_size
    (tmp_path / "disk").mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size * 7 // 2 // 4096 * 4096}", "tmpfs", tmp_path / "disk"],
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small disk")
    try:
        model = load(good[0])
        path = save(model, tmp_path / "disk/model.keras")
        before, harmed, tried = path.read_bytes(), 0, 0
        while True:  # fill what is left, little by little
            tried += 1
            (tmp_path / f"disk/filler{tried}").write_bytes(bytes(size // 8))
            try:
                save(model, path)
                before = path.read_bytes()
            except OSError as error:
                harmed += "No space left on device" not in str(error)
                harmed += path.read_bytes() != before
                break
        record_fault("disk full (a small tmpfs)", tried, harmed)
        assert harmed == 0
        assert load(path).count_params() == model.count_params()
    finally:
        subprocess.run(["umount", tmp_path / "disk"], check=True)


# Cut and flipped


def outcome(path, weights):
    """Load a file: "refused", "equal" (loaded with equal weights) or "wrong"."""
    try:
        loaded = load(path)
    except ValueError:
        return "refused"
    same = len(weights) == len(loaded.weights) and all(map(np.array_equal, weights, loaded.weights))
    return "equal" if same else "wrong"


@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_a_file_cut_at_any_byte_is_refused(count, good, tmp_path):
    content = good[0].read_bytes()
    path = tmp_path / "cut.keras"
    outcomes = []
    for end in random.Random(count).sample(range(len(content)), count):
        path.write_bytes(content[:end])
        outcomes.append(outcome(path, good[1]))
    record_fault("file cut at a random byte", count, count - outcomes.count("refused"))
    assert set(outcomes) == {"refused"}


@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_refused_or_does_no_harm(count, good, tmp_path):
    content = good[0].read_bytes()
    path = tmp_path / "flipped.keras"
    random_state = random.Random(count)
    wrong = 0
    for _ in range(count):
        flipped = bytearray(content)
        flipped[random_state.randrange(len(content))] ^= 1 << random_state.randrange(8)
        path.write_bytes(flipped)
        wrong += outcome(path, good[1]) == "wrong"
    record_fault("random bit flipped", count, wrong)
    assert wrong == 0


@pytest.mark.slow
def test_each_byte_around_the_members_is_a_date_or_seen_to(good, tmp_path):
    """The CRC guards the members, and not their headers and their list."""
    content = good[0].read_bytes()
    path = tmp_path / "flipped.keras"
    positions = [*range(30), *range(content.index(b"PK\1\2"), len(content))]
    wrong = 0
    for position in positions:
        flipped = bytearray(content)
        flipped[position] ^= 0xFF
        path.write_bytes(flipped)
        wrong += outcome(path, good[1]) == "wrong"
    record_fault("each byte of the frame flipped", len(positions), wrong)
    assert wrong == 0


# Hostile files


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
    dense["config"]["units"] = 60_000
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "InputLayer":
            layer["config"]["batch_shape"] = [None, 60_000]
    dense["build_config"]["input_shape"] = [None, 60_000]


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


def many_layers(config, dense):
    config["config"]["layers"][1:1] = [FLAT] * 300


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
    "padded config": (with_part("config.json", b"{" + b" " * (5 << 20) + b"}"), "longer than 4 MB"),
    "a million lists": (
        with_part("config.json", b'{"a":[' + b"[]," * 900_000 + b"[]]}"),
        "more than 200,000 items",
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
        r"weight of shape \(60000, 60000\), 14,400,000,000 bytes, that is not stored",
    ),
    "other units": (with_setting(units=2_000), r"weight of shape \(3, 2000\)"),
    "large embedding": (
        with_layer({"class_name": "Embedding", "config": {"input_dim": 10**9, "output_dim": 64}}),
        "1,000,000,064 of something",
    ),
    "unrolled loop": (
        with_layer({"class_name": "LSTM", "config": {"units": 4, "unroll": True}}, shape=(None, 10**6, 1)),
        "unrolls a loop",
    ),
    "endless loop": (
        edited(
            lambda config, dense: dense.update(
                class_name="SpectralNormalization", config={"layer": dict(dense), "power_iterations": 10**7}
            )
        ),
        "10,000,000 rounds",
    ),
    "mean of a billion columns": (
        with_layer(
            {"class_name": "Normalization", "config": {"mean": 0.0, "variance": 1.0}}, shape=(None, 10**9)
        ),
        "1,000,000,",
    ),
    "mean of unknown columns": (
        with_layer(
            {"class_name": "Normalization", "config": {"mean": 0.0, "variance": 1.0}, "build_config": None}
        ),
        "which input it was built for",
    ),
    "states of a billion rows": (
        with_layer({"class_name": "LSTM", "config": {"units": 4, "stateful": True}}, shape=(10**9, 1, 1)),
        "of something that is not stored",
    ),
    "layer called without input": (node_without_tensor, "calls a layer on no input"),
    "array of a type with a size": (with_setting(activation=NUMPY), "a type that is no number"),
    "layers that Keras builds again and again": (edited(many_layers), "Write it as a functional model"),
    "thousands of layers": (
        with_layer({"class_name": "Pipeline", "config": {"layers": [FLAT] * 3_000}}),
        "3,00. layers and calls",
    ),
    "metric of a gigabyte": (compiled_with("MeanIoU", num_classes=20_000), "400,000,000 of something"),
    "metric of many thresholds": (compiled_with("AUC", num_thresholds=10**8), "100,000,000 of something"),
    "vocabulary from a path": (
        with_layer({"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}),
        "does not build.*vocabulary file",
    ),
    "a million words": (with_member("assets/vocabulary.txt", words(260_000)), "259,999 words"),
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
    "part of the optimizer": (
        with_weights(lambda file: file.__delitem__("optimizer/vars/5")),
        "differ: /optimizer",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_by_its_own_reason(kind, good, tmp_path, monkeypatch):
    make, reason = HOSTILE[kind]
    path = tmp_path / "hostile.keras"
    make(path, good[0])
    monkeypatch.chdir(tmp_path)
    try:
        with pytest.raises(ValueError, match=f"(?s){re.escape(str(path))} is refused: .*({reason})"):
            load(path)
    except BaseException:
        record_fault("hostile files, by kind", 1, 1)
        raise
    record_fault("hostile files, by kind", 1, 0)
    assert [each.name for each in tmp_path.iterdir()] == ["hostile.keras"]


def test_unsafe_mode_that_was_switched_on_elsewhere_is_noticed(good):
    keras.config.enable_unsafe_deserialization()
    try:
        with pytest.raises(ValueError, match="enable_unsafe_deserialization"):
            load(good[0])
        assert load(good[0], trusted=True).count_params() == 21
    finally:
        _keras.set_safe_mode(None)


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("safe_mode", lambda: None),
        ("safe_mode_scope", lambda on: contextlib.nullcontext()),
        ("declared_into", lambda variables: contextlib.nullcontext()),
    ],
)
def test_a_guard_of_keras_that_does_not_bite_is_noticed(name, without, good, monkeypatch):
    guards_bite.cache_clear()
    monkeypatch.setattr(_keras, name, without)
    with pytest.raises(RuntimeError, match="does not keep code out of files, or does not tell"):
        load(good[0])
    assert guards_bite.cache_info().currsize == 0
    monkeypatch.undo()
    load(good[0])
    assert guards_bite.cache_info().currsize == 1


def test_a_trusted_file_may_hold_code_but_must_be_whole(good, tmp_path):
    model = keras.Sequential([keras.Input((2,)), layers.Lambda(lambda x: 2 * x)])
    path = tmp_path / "code.keras"
    model.save(path)
    with pytest.raises(ValueError, match="is a Lambda, which holds code"):
        load(path)
    np.testing.assert_array_equal(load(path, trusted=True)(np.ones((1, 2))), [[2, 2]])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cut off"):
        load(path, trusted=True)


def test_other_formats_are_refused_with_the_way_out(tmp_path):
    (tmp_path / "old.h5").write_bytes(b"\x89HDF")
    (tmp_path / "saved").mkdir()
    (tmp_path / "model.pb").write_bytes(b"")
    for name in ("old.h5", "saved"):
        with pytest.raises(
            ValueError, match=r"Load it with the Keras version that wrote it.*save it as \.keras"
        ):
            load(tmp_path / name)
    with pytest.raises(ValueError, match=r"must end in \.keras"):
        load(tmp_path / "model.pb")
    with pytest.raises(FileNotFoundError, match="is no file"):
        load(tmp_path / "none.keras")


def test_what_is_loaded_is_what_was_checked(good, tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    path.write_bytes(good[0].read_bytes())
    check = api.check

    def check_then_swap(*args):
        checked = check(*args)
        path.write_bytes(b"swapped")
        return checked

    monkeypatch.setattr(api, "check", check_then_swap)
    for weight, other in zip(good[1], load(path).weights, strict=True):
        np.testing.assert_array_equal(weight, other)


MEASURE = """
import sys, time, pathlib, re
import keras, toolkit
from toolkit import load
def memory(key):  # kB
    return int(re.search(key + r":\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
good, *paths = sys.argv[1:]
for _ in range(2):
    load(good)
for path in paths:
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before, started, loaded = memory("VmRSS"), time.perf_counter(), None
    try:
        loaded = load(path)
    except ValueError:
        pass
    print(memory("VmHWM") - before, time.perf_counter() - started, int(loaded is not None), path, flush=True)
    del loaded
"""


def large(path, compiled=True, trained=False, parts=1):
    model = keras.Sequential(
        [keras.Input((1_000,)), *(layers.Dense(1_000 * 10 // parts) for _ in range(parts))]
    )
    if compiled:
        model.compile("adam", "mse")
    if trained:
        model.optimizer.build(model.trainable_variables)
    model.save(path)


def deep(path, layer, count, shape=(4, 4)):
    tensor = inputs = keras.Input(shape)
    for _ in range(count):
        tensor = layer()(tensor)
    keras.Model(inputs, tensor).save(path)


def wordy(path, count):
    layer = layers.TextVectorization()
    layer.set_vocabulary([f"w{number}" for number in range(count)])
    keras.Sequential([keras.Input((1,), dtype="string"), layer]).save(path)


LARGE = {
    "weights alone": lambda path: large(path, compiled=False),
    "weights in parts": lambda path: large(path, compiled=False, parts=10),
    "with the optimizer": lambda path: large(path, trained=True),
    "with an optimizer that was not stored": large,
    "many small layers": lambda path: deep(path, lambda: layers.Dense(4), 190),
    "many loops": lambda path: deep(
        path, lambda: layers.Bidirectional(layers.LSTM(2, return_sequences=True)), 28
    ),
    "many words": lambda path: wordy(path, 120_000),
}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from /proc")
def test_no_file_costs_more_than_50_megabytes_and_four_times_itself(good, tmp_path):
    for number, (make, _) in enumerate(HOSTILE.values()):
        make(tmp_path / f"{number} {list(HOSTILE)[number]}.keras", good[0])
    hostile = sorted(tmp_path.iterdir())
    for name, make in LARGE.items():
        make(tmp_path / f"{name}.keras")
    rows = []
    for paths in (hostile, *([tmp_path / f"{name}.keras"] for name in LARGE)):  # each in a process of its own
        command = [sys.executable, "-c", MEASURE, good[0], *paths]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
        for line in result.stdout.splitlines():
            kb, seconds, loaded, path = line.split(maxsplit=3)
            rows.append((int(kb) * 1.024 / 1000, float(seconds), int(loaded), Path(path)))
    allowed = {path: 50 + 4e-6 * path.stat().st_size for *_, path in rows}
    assert len(rows) == len(HOSTILE) + len(LARGE)
    assert {path.stem for *_, loaded, path in rows if loaded} == set(LARGE)
    for mb, seconds, _, path in sorted(rows, key=lambda row: -row[0])[:12]:
        print(f"{mb:.0f} MB of {allowed[path]:.0f}, {seconds:.2f} s: {path.stem}")
    excess = [(mb, path.stem) for mb, *_, path in rows if mb > allowed[path]]
    record_fault("files that cost more than 50 MB + 4n to load", len(rows), len(excess))
    assert not excess


# What the helpers take


@hypothesis.settings(max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(st.binary(max_size=300))
def test_no_bytes_load_as_a_model(tmp_path, content):
    path = tmp_path / "any.keras"
    for each in (content, b"PK\3\4" + content, content + b"PK\5\6" + bytes(18)):
        path.write_bytes(each)
        with pytest.raises(ValueError, match="is refused"):
            load(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["class_name", "config", "module", "registered_name", "layers", "name", "build_config", "a"]
            ),
            inner
            | st.sampled_from(
                ["Dense", "Sequential", "keras", "keras.layers", "Functional", "function", "__tensor__"]
            ),
            max_size=5,
        )
    ),
    max_leaves=12,
)


@hypothesis.settings(max_examples=40, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(value=json_values, place=st.sampled_from(["whole", "layer", "setting", "compiled"]))
def test_no_config_crashes(good, tmp_path, value, place):
    """Each is refused, or is a model with equal weights."""
    members = parts_of(good[0])
    config = json.loads(members["config.json"])
    if place == "layer":
        config["config"]["layers"][1] = value
    elif place == "setting":
        config["config"]["layers"][1]["config"]["kernel_regularizer"] = value
    elif place == "compiled":
        config["compile_config"]["metrics"] = value
    path = tmp_path / "any.keras"
    text = json.dumps(value if place == "whole" else config).encode()
    write_zip(path, [(name, {**members, "config.json": text}[name]) for name in ORDER])
    assert outcome(path, good[1]) in ("refused", "equal")


anything = st.one_of(
    *(st.none(), st.booleans(), st.integers(-5, 40), st.floats(), st.text(max_size=4), st.binary(max_size=4)),
    st.lists(st.integers(-3, 9) | st.floats() | st.none() | st.text(max_size=2), max_size=5),
    st.lists(st.lists(st.integers(-3, 9), max_size=3), max_size=4),
    st.sampled_from(
        [np.array(1.0), np.zeros((0, 3)), np.array(["a"]), np.array([[1, 2], [3, 4]]), object(), {}, {"a": 1}]
    ),
)


@functools.cache
def compiled():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


HELPERS = {
    "fit": lambda a, b, c: toolkit.fit(compiled(), a, b, sample_weight=c, epochs=0, verbose=0),
    "fit's validation": lambda a, b, c: toolkit.fit(
        compiled(), np.ones((4, 2)), np.ones(4), validation_data=(a, b), callbacks=c, epochs=0, verbose=0
    ),
    "fit's settings": lambda a, b, c: toolkit.fit(
        compiled(), np.ones((4, 2)), np.ones(4), batch_size=a, class_weight=b, epochs=c, verbose=0
    ),
    "fit_many": lambda a, b, c: toolkit.fit_many(
        [compiled()], np.ones((4, 2)), np.ones(4), [(a, b)], callbacks=c, epochs=0, verbose=0
    ),
    "fit_many's models": lambda a, b, c: toolkit.fit_many(
        a, np.ones((4, 2)), np.ones(4), b, names=c, epochs=0
    ),
    "cross_validate": lambda a, b, c: toolkit.cross_validate(
        lambda rows: compiled(), np.ones((4, 2)), np.ones(4), folds=a, repeats=b, seed=c, epochs=0, verbose=0
    ),
    "kfold": lambda a, b, c: toolkit.kfold(a, b, seed=c),
    "kfold of labels": lambda a, b, c: toolkit.kfold(a, b, stratify=c),
    "multi_hot": lambda a, b, c: toolkit.multi_hot(a, b, sparse=bool(c)),
    "decode": lambda a, b, c: toolkit.decode(a, {"a": 1} if c else b),
    "encode": lambda a, b, c: toolkit.encode(a, b, num_words=c),
    "Standardizer": lambda a, b, c: toolkit.Standardizer.fit(a)(b),
    "MinMaxNormalizer": lambda a, b, c: toolkit.MinMaxNormalizer.fit(a)(b),
    "head": lambda a, b, c: toolkit.head(a),
    "plot_history": lambda a, b, c: toolkit.plot_history(a, "loss" if c else b),
    "plot_folds": lambda a, b, c: toolkit.plot_folds(a, "loss" if c else b),
    "Data": lambda a, b, c: toolkit.Data(a, b),
    "boston": lambda a, b, c: toolkit.Data("sample").boston_housing(test_split=a, seed=b),
    "Checkpoint": lambda a, b, c: toolkit.Checkpoint("x.keras", a, b),
    "save": lambda a, b, c: save(a, "x.keras"),
    "load": lambda a, b, c: load("none.keras" if b else str(a), sha256=c),
}


@pytest.mark.parametrize("name", HELPERS)
def test_a_helper_takes_what_it_is_given_or_says_why_not(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    @hypothesis.settings(max_examples=80)
    @hypothesis.given(anything, anything, anything)
    def check(a, b, c):
        with contextlib.suppress(ValueError, TypeError, OSError):
            HELPERS[name](a, b, c)

    check()
