import pickle
import subprocess
import sys

import pytest
from data.small import NAMES, assert_same, keras_loader, load, real_data

from toolkit.data import Data, Dataset, files


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mnist", {}),
        ("fashion_mnist", {}),
        *(("boston_housing", {"test_split": split, "seed": 7}) for split in (0, 0.2, 0.33, 0.99)),
        ("california_housing", {}),
        ("california_housing", {"version": "small", "test_split": 0.5}),
    ],
)
def test_images_and_houses_equal_those_of_keras(name, options, small, small_folder):
    with keras_loader(name, small_folder) as load_data:
        theirs = load_data(**options)
    dataset = load(name, Data("real", small_folder), **options)
    assert_same(dataset, theirs)
    assert dataset.x_train.flags.writeable


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("imdb", {"num_words": -1}, "`num_words` must not be negative. Received: -1"),
        ("imdb", {"num_words": 1e4}, "`num_words` must be a whole number. Received: 10000.0"),
        ("imdb", {"skip_top": -1}, "`skip_top` must not be negative. Received: -1"),
        ("imdb", {"skip_top": None}, "`skip_top` must be a whole number. Received: None"),
        ("imdb", {"maxlen": -5}, "`maxlen` must not be negative. Received: -5"),
        ("imdb", {"index_from": None}, "`index_from` must be a whole number. Received: None"),
        ("imdb", {"start_char": "a"}, "`start_char` must be a whole number. Received: 'a'"),
        ("imdb", {"seed": -1}, "`seed` must not be negative. Received: -1"),
        ("imdb", {"seed": 2**32}, "Seed must be between 0 and 2"),
        ("reuters", {"test_split": 1}, "`test_split` must be at least 0 and less than 1. Received: 1"),
        ("reuters", {"test_split": -0.1}, "`test_split` must be at least 0"),
        ("boston_housing", {"test_split": 1.5}, "`test_split` must be at least 0"),
        ("boston_housing", {"seed": -1}, "Seed must be between 0 and 2"),
        ("california_housing", {"version": "big"}, "`version` must be 'large' or 'small'. Received: 'big'"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(name, options, message, monkeypatch):
    def find(*_):
        raise AssertionError("files were looked for first")

    monkeypatch.setattr(Data, "_find", find)
    with pytest.raises(ValueError, match=message.replace("*", r"\*")):
        load(name, Data("sample"), **options)


def test_a_mode_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"`mode` must be 'auto', 'real' or 'sample'. Received: 'fake'"):
        Data("fake")


def test_the_record_says_what_was_read(small, small_folder):
    seen = []
    data = Data("real", small_folder, on_load=seen.append)
    dataset = data.imdb()
    assert seen == [dataset]
    record = data.used[0]
    assert (record.name, record.source, record.reason) == ("imdb", "real", "")
    assert record.files == {file: files.SHA256[file] for file in ("imdb.npz", "imdb_word_index.json")}
    assert not isinstance(record, Dataset)  # it keeps no array alive
    assert dataset.best is None
    assert dataset.word_index["word29"] == 29
    with pytest.raises(ValueError, match=r"`word_index` is there for imdb and reuters only. Received: mnist"):
        _ = data.mnist().word_index


def test_the_sample_is_not_silent(small, tmp_path):
    with pytest.warns(UserWarning, match="The real mnist cannot be had") as caught:
        dataset = Data().mnist()
    assert caught[0].filename == __file__  # the warning points at the caller
    assert dataset.source == "sample"
    assert "mnist.npz not found" in dataset.reason
    seen = []
    Data(on_load=seen.append).boston_housing()  # whoever listens is told, and not warned as well
    assert seen[0].source == "sample"
    assert seen[0].reason


def test_the_mode_sample_looks_for_nothing(small, small_folder):
    data = Data("sample", small_folder)
    assert [load(name, data).source for name in NAMES] == ["sample"] * 6
    assert [used.name for used in data.used] == NAMES


def test_importing_the_module_waits_for_nothing():
    code = "import sys, toolkit.data; print({'keras', 'tensorflow', 'sklearn'} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout == "set()\n"


def test_a_dataset_can_be_sent_to_another_process():
    dataset = pickle.loads(pickle.dumps(Data("sample").imdb()))
    assert dataset.word_index["the"] == 1
    assert len(repr(dataset)) < 500


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mnist", {}),
        ("fashion_mnist", {}),
        ("boston_housing", {}),
        ("boston_housing", {"test_split": 0.5, "seed": 9}),
        ("california_housing", {}),
        ("california_housing", {"version": "small"}),
    ],
)
def test_real_images_and_houses_equal_those_of_keras(name, options):
    folder, data = real_data(name)
    dataset = load(name, data, **options)
    with keras_loader(name, folder) as load_data:
        assert_same(dataset, load_data(**options))
    if name == "mnist":
        assert dataset.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
        assert dataset.x_train.mean() == pytest.approx(33.3184, abs=1e-4)
    if name == "fashion_mnist":
        assert dataset.class_names[dataset.y_train[0]] == "Ankle boot"
    if name == "boston_housing" and not options:
        assert [len(x) for x, _ in dataset] == [404, 102]
        assert dataset.x_train[:, dataset.feature_names.index("RM")].mean() == pytest.approx(6.27, abs=0.05)
    if options == {"version": "small"}:
        assert [len(x) for x, _ in dataset] == [480, 120]
