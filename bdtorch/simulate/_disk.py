"""A file for HDF5 that never fails it: errors of the disk are kept for whoever wrote."""

from __future__ import annotations

import io
from pathlib import Path


class Disk(io.RawIOBase):
    """A file to write and read, whose first error is kept instead of raised.

    HDF5 cannot close a file that it was not able to write, and ends the whole process when Python does. So once the disk is
    full, what else is written stays in memory until the file is closed.

    Attributes:
        problem: The first error of the disk.

    Args:
        path: The file, which is emptied.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.open("w+b", buffering=0)
        self.position = 0
        self.lost: list[tuple[int, bytes]] = []  # where it belongs, and what could not be written
        self.problem: OSError | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self._end()}[whence]
        self.position = begin + offset
        return self.position

    def tell(self) -> int:
        return self.position

    def _end(self) -> int:
        return max([self.file.seek(0, io.SEEK_END), *(where + len(content) for where, content in self.lost)])

    def write(self, content: object) -> int:
        view = memoryview(content).cast("B")  # type: ignore[arg-type]
        if self.problem is None:
            try:
                self._put(view)
            except OSError as problem:
                self.problem = problem
        if self.problem is not None:
            self.lost.append((self.position, bytes(view)))
        self.position += len(view)
        return len(view)

    def _put(self, view: memoryview) -> None:
        self.file.seek(self.position)
        while len(view):  # a disk that is nearly full takes a part
            view = view[self.file.write(view) or 0 :]

    def readinto(self, target: object) -> int:
        view = memoryview(target).cast("B")  # type: ignore[arg-type]
        count = max(0, min(len(view), self._end() - self.position))
        self.file.seek(self.position)
        self.file.readinto(view[:count])
        for where, content in self.lost:
            low, high = max(where, self.position), min(where + len(content), self.position + count)
            if low < high:
                view[low - self.position : high - self.position] = content[low - where : high - where]
        self.position += count
        return count

    def truncate(self, size: int | None = None) -> int:
        size = self.position if size is None else size
        if self.problem is None:
            try:
                self.file.truncate(size)
            except OSError as problem:
                self.problem = problem
        return size

    def flush(self) -> None:
        """Nothing waits: every write goes to the operating system at once."""

    def close(self) -> None:
        self.file.close()
        super().close()
