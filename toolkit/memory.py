"""How much memory a step takes: the most that this process holds while a block of code runs."""

import threading
from types import TracebackType

import psutil


class PeakMemory:
    """The most memory that this process holds at any time between the begin and the end of a block.

    It is looked up a hundred times a second. `resource.getrusage` and the like tell the most since the
    process began, so they count what earlier steps held, and Windows has none of them.

    Attributes:
        megabytes: The largest resident set so far, in millions of bytes; that of all libraries included.

    >>> with PeakMemory() as peak:
    ...     zeros = bytearray(50_000_000)
    >>> peak.megabytes > peak.added > 0
    True
    """

    def __init__(self) -> None:
        self.megabytes = self._before = 0.0
        self._process = psutil.Process()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._look()
        self._before = self.megabytes
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    @property
    def added(self) -> float:
        """By how much that is more than at the begin of the block, in millions of bytes."""
        return self.megabytes - self._before

    def _watch(self) -> None:
        while not self._ended.wait(0.01):
            self._look()

    def _look(self) -> None:
        self.megabytes = max(self.megabytes, self._process.memory_info().rss / 1e6)
