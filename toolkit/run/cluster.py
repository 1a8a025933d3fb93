"""The runs of a study on the machines of a Dask cluster, each in a process of its own there.

What goes out is a report that has not begun; what comes back is the folder of the run as one archive.
"""

import concurrent.futures
import hashlib
import importlib
import io
import json
import logging
import os
import platform
import re
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from toolkit.run import processes, report

_SENT = re.compile(r"(report\.json|output\.txt|[\w+-][\w.+-]*\.(csv|png))")  # and no model: it may be large
_OF_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)
_MOST_BYTES = 100_000_000  # of all files that a run sends back


class Cluster:
    """The workers of a Dask scheduler.

    Args:
        start: What comes after `python` to start the recipe.
        folder: That of the study.
        address: The scheduler's. Dask's own settings say which certificates are used for `tls://`.

    Raises:
        OSError: If the scheduler does not answer.
    """

    def __init__(self, start: Sequence[str], folder: Path, address: str) -> None:
        distributed: Any = importlib.import_module("distributed")  # an extra, without types
        for name in list(logging.root.manager.loggerDict):
            if name.partition(".")[0] in ("distributed", "tornado"):
                logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is in the exceptions
        self.start, self.folder = tuple(start), folder
        certified = distributed.Security().get_connection_args("client")["ssl_context"] is not None
        if address.startswith("tls://") and not certified:
            raise ConnectionError(f"{address} needs Dask's settings distributed.comm.tls: there are none")
        self.client = distributed.Client(address, timeout=10, set_as_default=False)
        self.executor = self.client.get_executor(pure=False)
        self.number = sum(self.client.nthreads().values())
        if not self.number:
            print(f"No worker has joined {address} yet. Waiting for one ...", flush=True)

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.shutdown(wait=False)
        self.client.close(timeout=5)

    def submit(self, place: str) -> "Future[Any]":
        """Send a run out."""
        content = report.read(self.folder / place)
        if content["command"]["data"] == "auto":  # a worker without the data must not take the sample
            content["command"]["data"] = "real"
        off = os.environ.get("RECIPES_CACHE", "").lower() == "off"  # a folder is that of this machine
        cache = "off" if off else None
        future: Future[Any] = self.executor.submit(work, self.start, content, fingerprint(), cache)
        return future

    def finish(self, place: str, future: "Future[Any]") -> None:
        """Unpack what came back, or write down why nothing did.

        Raises:
            ConnectionError: If the scheduler is gone.
        """
        try:
            unpack(future.result(), self.folder / place)
        except concurrent.futures.CancelledError as error:
            raise ConnectionError("The scheduler of the cluster is gone") from error
        except Exception as error:
            content = report.read(self.folder / place)
            words = " ".join(f"{type(error).__name__}: {error}".split())
            failed = {"status": "failed", "error": words}
            report.write(self.folder / place, content | failed)

    def interrupt(self) -> None:
        """Take back what has not begun, and let go of the rest."""
        self.executor.shutdown(wait=False)


def fingerprint() -> dict[str, str]:
    """Return what must be the same on both sides: this project's code and data, and what it stands on."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[2]
    files = [path for room in ("toolkit", "recipes") for path in (root / room).rglob("*")]
    for path in sorted(path for path in files if path.suffix in (".py", ".ini")):  # the sample's words
        digest.update(f"{path.relative_to(root).as_posix()} {len(path.read_bytes())} ".encode())
        digest.update(path.read_bytes())
    versions = report.versions()
    return {"this project": digest.hexdigest()[:12]} | {
        name: versions[name] for name in ("keras", "tensorflow")
    }


def work(
    start: Sequence[str], content: dict[str, Any], wanted: dict[str, str], cache: str | None = None
) -> bytes:
    """Run a job on the machine of a worker, and return its folder as an archive.

    Args:
        start: What comes after `python` to start the recipe.
        content: The report of a run that has not begun.
        wanted: The `fingerprint` of who asks.
        cache: "off", if XLA shall keep nothing.

    Raises:
        RuntimeError: If this machine has another version of something.
    """
    own = fingerprint()
    other = [
        f"{name} {own[name]} where {wanted[name]} is wanted" for name in wanted if own[name] != wanted[name]
    ]
    if other:
        raise RuntimeError(f"{platform.node()} has {', '.join(other)}")
    data_dir = content["command"]["data_dir"]
    if data_dir is not None and not Path(data_dir).is_dir():  # here the data lie elsewhere, if at all
        content["command"]["data_dir"] = None
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, str(content["recipe"]), "run")  # as deep as in "runs", for files beside it
        place.mkdir(parents=True)
        report.write(place, content)
        with (place / "output.txt").open("wb") as output:
            status = processes.start(start, place, output, cache).wait()
        content = report.read(place)
        if content["status"] in ("waiting", "running"):
            raise RuntimeError(f"it ended with status {status} on {platform.node()}")
        return pack(place)


def pack(folder: Path) -> bytes:
    """Return an archive of the report, the histories and the figures in a folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            if _SENT.fullmatch(path.name) and path.is_file():
                archive.write(path, path.name)
    return buffer.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Write the files of an archive into a folder, the report last: with it, the run counts as done.

    Raises:
        ValueError: If it holds anything that `pack` would not have put there, before any file is written.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            odd = [name for name in names if not _SENT.fullmatch(name)]
            if odd or len(set(names)) < len(names) or "report.json" not in names:
                raise ValueError(
                    f"an archive must hold report.json, csv and png files. Received: {names!r:.200}"
                )
            if (size := sum(member.file_size for member in members)) > _MOST_BYTES:
                raise ValueError(f"an archive must hold at most {_MOST_BYTES} bytes. Received: {size}")
            files = {name: archive.read(name) for name in names}
        json.loads(files["report.json"])
    except (*_OF_ZIP, RecursionError) as error:
        raise ValueError(f"an archive must be a zip file. Received: {error}") from error
    for name in sorted(files, key="report.json".__eq__):
        report.write_bytes(folder / name, files[name])
