"""Keep what XLA compiles, so that the next process need not compile it again.

XLA trusts its files: a damaged one ends the training, or the process, as it holds machine code. So each
process gets a folder of its own, with links to the files that are whole by their sha256, and what it has
compiled is added to the others when it ends. So none reads what another one writes or removes.
"""

import atexit
import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
import time
from pathlib import Path

MOST_BYTES = 500_000_000  # of all files; the oldest go first
LEAST_FREE_BYTES = 100_000_000  # where a disk has less, XLA could fail to write
_FLAG, _FOR_CPU = "--tf_xla_persistent_cache_directory", "--tf_xla_persistent_cache_device_types=CPU"
_STRAY_SECONDS = 24 * 3600.0
_CHANGE_CODE = ("XLA_FLAGS", "TF_XLA_FLAGS", "TF_ENABLE_ONEDNN_OPTS")
_OF_PROCESSOR = ("vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU ")  # of Linux
_in_use: list[Path] = []


def compile_cache(folder: str | os.PathLike[str] | None = None) -> None:
    """Let XLA keep what it compiles in a folder, and take it from there in later processes.

    Call it before TensorFlow's first operation. The same program then starts sooner the second time, with
    the same numbers, bit for bit. Only code for a CPU is kept, and for the very version of TensorFlow and
    model of processor. A damaged file is not used. Should the disk become full while XLA writes, models are
    trained without XLA, which may change the last digits.

    The files are machine code, so nobody else may write them: the folder must be the user's own, with
    mode 0700, no link, and in no folder in which others may rename it. A folder that is not there is made.

    Args:
        folder: Where to; by default "keras-study-recipes/xla" in the user's folder of caches, which is
            $XDG_CACHE_HOME or ~/.cache, on macOS ~/Library/Caches, on Windows %LOCALAPPDATA%.

    Raises:
        PermissionError: If others may write there.
        OSError: If the folder cannot be found or made, or its disk is full.
        RuntimeError: If it is too late, or XLA has another cache already.

    >>> import subprocess
    >>> program = "import sys, toolkit; toolkit.compile_cache(sys.argv[1])  # and then train, by toolkit.fit"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     subprocess.run([sys.executable, "-c", program, folder]).returncode
    0
    """
    try:
        root = _default_folder() if folder is None else Path(folder).expanduser()
    except RuntimeError as error:
        raise OSError(f"{folder or '~'} is not known: {error}") from error
    if _in_use == [root]:
        return
    flags = os.environ.get("TF_XLA_FLAGS", "").strip()
    if not _in_use:  # then a cache of ours is that of the process that started this one
        flags = without_cache(flags)
    if _FLAG in flags or flags[:1] not in ("", "-"):  # a name is that of a file of flags
        raise RuntimeError(f"TF_XLA_FLAGS must have room for a cache. Received: {flags}")
    os.environ["TF_XLA_FLAGS"] = flags
    checked, key = _private(root), _key()
    if (free := shutil.disk_usage(checked).free) < LEAST_FREE_BYTES:
        raise OSError(
            f"{checked} has {free / 1e6:.0f} MB left, where {LEAST_FREE_BYTES / 1e6:.0f} are wanted"
        )
    _tidy(checked)
    own = Path(tempfile.mkdtemp(prefix=f"process-{os.getpid()}-{_machine()}-", dir=checked))
    quoted = str(own).replace("\\", "\\\\").replace('"', '\\"')
    cache = f'{_FLAG}="{quoted}" {_FOR_CPU}'
    os.environ["TF_XLA_FLAGS"] = f"{flags} {cache}".strip()
    if "tensorflow" in sys.modules:
        from toolkit import _tensorflow

        if not _tensorflow.reads_settings_now():
            os.environ["TF_XLA_FLAGS"] = flags
            own.rmdir()
            raise RuntimeError("compile_cache must be called before TensorFlow's first operation")
    known = _link_whole_files(checked, key, own)
    atexit.register(_add_new_files, checked, key, own, known, os.getpid())
    _in_use.append(root)


def without_cache(flags: str) -> str:
    """Return TF_XLA_FLAGS for another process: the folder that they name is for this one alone.

    >>> without_cache(f'--tf_xla_clustering_debug {_FLAG}="/xla/process-7-here-x1" {_FOR_CPU}')
    '--tf_xla_clustering_debug'
    """
    quoted = r'"(\\.|[^"\\])*process-\d+-\w+-\w+"'
    return re.sub(rf"{_FLAG}={quoted} {_FOR_CPU}", "", flags).strip()


def _machine() -> str:
    return re.sub(r"\W", "_", platform.node())


def _default_folder() -> Path:
    if os.name == "nt":
        caches = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        caches = "~/Library/Caches"
    else:
        caches = os.environ.get("XDG_CACHE_HOME", "")
        caches = caches if Path(caches).is_absolute() else "~/.cache"  # as the convention has it
    return Path(caches, "keras-study-recipes", "xla").expanduser()


def _private(folder: Path) -> Path:
    """Return a folder, made if need be, as a path without links; or say why others may write there."""
    if folder.is_symlink():
        raise PermissionError(f"{folder} must be no link")
    folder = folder.resolve()
    for each in reversed((folder, *folder.parents)):
        if not each.exists():
            each.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid"):  # on Windows, the user's folder is private
        for each in (folder, *folder.parents):
            status = each.stat()
            mode = stat.S_IMODE(status.st_mode)
            if status.st_uid not in ((os.getuid(),) if each == folder else (os.getuid(), 0)):
                raise PermissionError(f"{each} must belong to the user, not to user {status.st_uid}")
            if each == folder and mode & 0o077:
                raise PermissionError(f"{each} must have mode 0700. Received: {mode:04o}")
            if mode & 0o022 and not mode & stat.S_ISVTX:
                raise PermissionError(
                    f"{each} must be for its owner alone to write. Received: mode {mode:04o}"
                )
    return folder


def _key() -> str:
    """Name what machine code depends on, beside the program: all that is compiled under it fits together."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    made_for = [importlib.metadata.version("tensorflow"), f"{cores} cores", *_processor()]
    made_for += [f"{name}={os.environ.get(name, '')}" for name in _CHANGE_CODE]
    return hashlib.sha256("\n".join(made_for).encode()).hexdigest()[:16]


def _processor() -> list[str]:
    """Return the model and the instructions of the processor, or else the name of the machine."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return [*platform.uname(), platform.processor()]
    return [line for line in first.splitlines() if line.startswith(_OF_PROCESSOR)]


def _link_whole_files(folder: Path, key: str, own: Path) -> set[str]:
    """Link the files of a key, as XLA calls them, into a process's own folder; remove damaged ones."""
    known = set()
    for path in sorted(folder.glob(f"{key}-*.pb")):
        match = re.fullmatch(rf"{key}-([0-9a-f]{{64}})-(.+)", path.name)
        if match is None:  # not of ours
            continue
        sha256, name = match.groups()
        with contextlib.suppress(OSError):  # such as one that another process has removed
            if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                path.unlink()
            elif name not in known:
                (own / name).hardlink_to(path)
                known.add(name)
    return known


def _add_new_files(folder: Path, key: str, own: Path, known: set[str], process: int) -> None:
    """Put what this process has compiled beside the other files, each under its sha256."""
    if os.getpid() != process:  # a copy of it
        return
    with contextlib.suppress(OSError):  # a full disk: then the next process compiles again
        for path in own.glob("*.pb"):
            if path.name not in known:
                sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
                path.replace(folder / f"{key}-{sha256}-{path.name}")
    shutil.rmtree(own, ignore_errors=True)
    with contextlib.suppress(OSError):
        _tidy(folder)


def _tidy(folder: Path) -> None:
    """Remove the oldest files, where they are too large in all, and what killed processes have left."""
    named = {
        path: re.fullmatch(r"process-(\d{1,9})-(\w*)-\w+", path.name) for path in folder.glob("process-*")
    }
    left = {path: match.groups() for path, match in named.items() if match}
    if left:
        import psutil  # which takes a moment

        for path, (process, machine) in left.items():
            with contextlib.suppress(OSError):
                # Of a process on another machine, or in another container, only the time can tell.
                old = time.time() - path.stat().st_mtime > _STRAY_SECONDS
                if old if machine != _machine() else not psutil.pid_exists(int(process)):
                    shutil.rmtree(path, ignore_errors=True)
    total = 0
    with contextlib.suppress(OSError):  # another process does the same
        files = [(path.stat(), path) for path in folder.glob("*.pb")]
        for status, path in sorted(files, key=lambda file: file[0].st_mtime, reverse=True):
            total += status.st_size
            if total > MOST_BYTES:
                path.unlink()
