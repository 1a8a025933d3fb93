"""One run of a recipe in this process: seed, data, its `main`, and a report of whatever came of it."""

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from toolkit import _files
from toolkit.data import Data, Dataset
from toolkit.run import Run, report, started
from toolkit.run.options import Common, Options
from toolkit.run.recipe import Recipe


def run(recipe: Recipe, options: Options, common: Common, folder: Path) -> int:
    """Run a recipe once, and return the exit status.

    Args:
        recipe: What to run.
        options: The options of its `main`.
        common: Seed and data.
        folder: Where the results go. A run that it holds already goes on from its checkpoints.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a reader of a log file sees each line as it comes
            stream.reconfigure(line_buffering=True, errors="replace")
    tf.get_logger().setLevel("ERROR")
    with _files.locked(folder / ".lock", f"Another process works in {folder}. Waiting for its end ..."):
        if common.resume is not None and report.read(folder)["status"] == "finished":
            return 0  # by the process that was waited for
        return _run(recipe, options, common, folder)


def _run(recipe: Recipe, options: Options, common: Common, folder: Path) -> int:
    device = find_device()
    keras.utils.set_random_seed(common.seed)

    def on_load(dataset: Dataset) -> None:
        report.announce(dataset, common.seed, device)

    data = Data(common.data, common.data_dir, on_load=on_load)
    default = options == recipe.defaults()
    this = Run(recipe.name, folder, data, common.seed, recipe.expected, default)
    begun = time.perf_counter()
    said: dict[str, Any] = report.blank(recipe, options, common) | {
        "metrics": this.metrics,
        "versions": report.versions(),
        "device": device,
    }

    def write(status: report.Status, error: str = "") -> None:
        said["status"], said["error"] = status, error
        said["data"] = [
            {"name": used.name, "source": used.source, "files": used.files, "reason": used.reason}
            for used in data.used
        ]
        said["seconds"] = round(time.perf_counter() - begun, 3)
        report.write(folder, said)

    write("running")  # so that --resume finds the options of a run that was killed
    started()
    status: report.Status = "failed"
    error_text, code = "", 1
    try:
        recipe.main(this, **options)
        status = "finished"
        if this.judged():
            said["verdict"] = "inside" if this.inside() else "outside"
        code = int(said["verdict"] == "outside")
        shutil.rmtree(this.path("checkpoints"), ignore_errors=True)
    except KeyboardInterrupt:
        status, code = "interrupted", 130
    except BrokenPipeError:  # whoever read what we print has left, as `head` does
        status, code = "interrupted", report.BROKEN_PIPE
    except OSError as error:  # no data, a full disk: the message is the whole story
        error_text = str(error)
    except ValueError as error:
        error_text = repr(error)
        blamed = _blamed(error, options, recipe.defaults())
        if not blamed:
            raise
        error_text, code = f"{blamed} cannot be: {error}", 2
    except BaseException as error:
        error_text = repr(error)
        raise
    finally:
        write(status, error_text)
    if code == 2:
        print(f"{recipe.name}: {error_text}", file=sys.stderr)
    elif code != report.BROKEN_PIPE:
        report.conclude(said, default, folder, f"{recipe.typed} --resume {folder}")
    return code


def _blamed(error: ValueError, options: Options, defaults: Options) -> str:
    """Name the options whose value, not the default one, is what a ValueError says that it received."""
    _, found, received = str(error).rpartition("Received: ")
    received = received.rpartition("=")[2].strip(" .'\"")
    changed = [name for name, value in options.items() if found and value != defaults[name]]
    return ", ".join(
        f"--{name.replace('_', '-')} {options[name]}" for name in changed if str(options[name]) == received
    )


def find_device() -> str:
    """Name the GPUs that TensorFlow sees, each of whose memory shall grow with the need; or say CPU."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:  # or TensorFlow would take all of its memory at once
        tf.config.experimental.set_memory_growth(gpu, True)
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]
    return ", ".join(names) or "CPU"
