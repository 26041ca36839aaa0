"""Records that go to an HDF5 file while the simulation runs, and reading them back.

The file has one group for each record. Its attributes: ``kind`` (``"spikes"`` or ``"values"``), ``every``,
``structured`` and, for spikes, ``shape`` (``(*batch, size)``). Spikes are the data sets ``step`` and ``train`` (the place
in the flattened shape); values are one data set ``values`` of shape ``(time, ...)``, or groups and data sets by the names
of a structure. The attributes of the file: ``format``, ``version``, ``model``, ``dt`` (ms), ``start``, ``steps``,
``loop`` and ``ended`` (``"complete"``, ``"interrupted"``, or the name of an error).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._system import whole_steps
from bdtorch._version import __version__
from bdtorch.simulate._body import Body
from bdtorch.simulate._disk import Disk
from bdtorch.simulate._functorch import transformed
from bdtorch.simulate.records import Spikes

_FORMAT = "bdtorch-records-1"
_CHUNK = 1 << 18  # bytes of a chunk of a data set before compression
_PENDING = 1 << 23  # bytes that wait in memory
_PERIOD = 1.0  # seconds that they wait at most


def check_stream(path: Any, record: Any, keep_out: bool | None) -> None:
    """Say at the front door what speaks against streaming records to ``path``."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"`simulate(stream=...)`: expected the path of a file, got {path!r}")
    target = Path(path)
    if target.is_dir() or not target.parent.is_dir():
        raise ValueError(f"`simulate(stream=...)`: expected a file in a folder that exists, got {os.fspath(path)!r}")
    if not record or keep_out:
        raise ValueError("`simulate(stream=...)`: expected records and no `keep_out`; outputs can be recorded by name")
    for name in record:
        if not isinstance(name, str) or "/" in name or name in ("", "."):
            raise ValueError(f"`simulate(stream=...)`: expected records with names without '/', got {name!r}")
    if transformed():
        raise ValueError("`simulate(stream=...)`: expected no torch.func transform; a batch is an axis of the state")
    _h5py("simulate(stream=...)")


def _h5py(asked: str) -> Any:
    try:
        import h5py  # optional, and slow to import
    except ImportError as error:
        raise ImportError(f"`{asked}`: expected h5py to be installed (pip install h5py)") from error
    return h5py


class Stream:
    """Writes the records of one run; a context that puts the file into its place at the end.

    Where an error ends the run, what was recorded is kept; where nothing was, a file that was there before is left.

    Attributes:
        loop: Name of the loop.
        ended: How the run ended.

    Args:
        path: The file.
        body: The body of the run, tried out.
        start: Number of steps between t = 0 and the start of the run.
    """

    def __init__(self, path: str | os.PathLike[str], body: Body, start: int) -> None:
        if body.differentiable:
            raise ValueError(
                "`simulate(stream=...)`: expected no gradient to be needed; wrap the call in torch.no_grad()"
            )
        self.path = Path(path).absolute()
        self.body = body
        self.start = start
        self.steps = 0
        self.loop = ""
        self.ended = "complete"
        self.columns = self._columns()

    def __enter__(self) -> Stream:
        try:
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        except OSError as problem:
            raise self._error(problem) from problem
        os.close(handle)
        self.temporary = Path(name)
        self.disk = Disk(self.temporary)
        self.file = _h5py("simulate(stream=...)").File(self.disk, "w", track_order=True)
        try:
            self._lay_out()
        except BaseException:
            self._close()
            raise
        return self

    def _close(self) -> None:
        self.file.close()
        self.disk.close()
        self.temporary.unlink(missing_ok=True)

    def _error(self, problem: OSError) -> OSError:
        return OSError(
            f"`simulate(stream=...)`: {os.fspath(self.path)!r} cannot be written: {problem.strerror or problem}"
        )

    def _lay_out(self) -> None:
        self.file.attrs.update(
            {"format": _FORMAT, "version": __version__, "model": type(self.body.system).__name__, "dt": self.body.dt}
        )
        self.file.attrs["start"] = self.start
        for (name, record), structure in zip(self.body.records.items(), self.body.structures, strict=True):
            group = self.file.create_group(name, track_order=True)
            group.attrs.update({"kind": "spikes" if record.sparse else "values", "every": record.every})
            group.attrs["structured"] = not structure.is_leaf()
        for column in self.columns:
            column.create(self.file)
        self.written = time.monotonic()

    def _columns(self) -> list[_Column]:
        """The data sets, for each observed tensor one, or two where it is sparse."""
        columns, number = [], 0
        for (name, record), structure in zip(self.body.records.items(), self.body.structures, strict=True):
            labels = tree.unflatten(list(range(structure.num_leaves)), structure)
            for path, _ in tree.named_leaves(labels):
                example = self.body.observed[number]
                number += 1
                if record.sparse:
                    shape = tuple(example.shape)
                    columns += [_Column(name, "step", (), torch.int64, shape), _Column(name, "train", (), torch.int64)]
                else:
                    columns.append(_Column(name, _inside(name, path), tuple(example.shape), example.dtype))
        return columns

    def take(self, kept: Sequence[Tensor | tuple[Tensor, Tensor]], steps: int) -> None:
        """Take what some steps left."""
        parts = [x for item in kept for x in (item if isinstance(item, tuple) else (item,))]
        for column, part in zip(self.columns, parts, strict=True):
            column.pending.append(part)
        self.steps += steps
        waiting = sum(x.numel() * x.element_size() for column in self.columns for x in column.pending)
        if waiting > _PENDING or time.monotonic() - self.written > _PERIOD:
            self._write()

    def _write(self) -> None:
        for column in self.columns:
            column.write()
        self.file.attrs.update({"loop": self.loop, "steps": self.steps, "ended": "unfinished"})
        self.file.flush()
        self._check()
        self.written = time.monotonic()

    def _check(self) -> None:
        if self.disk.problem is not None:
            raise self.disk.problem

    def records(self) -> StoredRecords:
        """The records, which can be read once the file is in its place."""
        return StoredRecords(self.path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is not None and not self.steps:
                return
            if kind is not None:
                self.ended = "interrupted" if issubclass(kind, KeyboardInterrupt) else kind.__name__
            self._write()
            self.file.attrs["ended"] = self.ended
            self.file.close()  # which writes what is left
            self._check()
            self.temporary.chmod(0o644)
            os.replace(self.temporary, self.path)
        except OSError as problem:
            raise self._error(problem) from error
        finally:
            self._close()


class _Column:
    """One data set, which grows along its first axis."""

    def __init__(
        self, record: str, path: str, shape: tuple[int, ...], dtype: torch.dtype, spikes: tuple[int, ...] | None = None
    ) -> None:
        self.record, self.path, self.shape, self.spikes = record, path, shape, spikes
        try:
            self.dtype = torch.empty(0, dtype=dtype).numpy().dtype
        except TypeError as error:
            raise TypeError(
                f"`simulate(stream=...)`: expected a dtype that NumPy has, got {dtype} in the record {record!r}"
            ) from error
        self.pending: list[Tensor] = []
        self.rows = 0

    def create(self, file: Any) -> None:
        group = file[self.record]
        if self.spikes is not None:
            group.attrs["shape"] = self.spikes
        row = self.dtype.itemsize
        for extent in self.shape:
            row *= max(1, extent)
        chunks = (max(1, _CHUNK // row), *(max(1, extent) for extent in self.shape))
        self.data = group.create_dataset(
            self.path, (0, *self.shape), self.dtype, maxshape=(None, *(extent or None for extent in self.shape)), chunks=chunks,
            compression="gzip", compression_opts=1, shuffle=True, track_order=True,
        )  # fmt: skip

    def write(self) -> None:
        rows = torch.cat(self.pending) if self.pending else torch.empty(0)
        if len(rows):  # a second Ctrl-C may end this anywhere, and it is then done again
            self.data.resize(self.rows + len(rows), 0)
            self.data[self.rows :] = rows.detach().cpu().numpy()
        self.rows, self.pending = self.rows + len(rows), []


def _inside(record: str, path: str) -> str:
    """The name of a data set within its group."""
    if "/" in path:
        raise ValueError(
            f"`simulate(stream=...)`: expected variables with names without '/', got {path!r} in the record {record!r}"
        )
    return path.replace(".", "/") if path else "values"


class StoredRecords(Mapping[str, Any]):
    """Records in a file, by name. Each is read when it is asked for; `between` reads a part.

    Spikes come as `Spikes`, values as tensors ``(time, ...)``, and what has a structure as a dict of such.

    Attributes:
        path: The file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __getitem__(self, name: str) -> Any:
        return self._read(name, None, None)

    def __iter__(self) -> Iterator[str]:
        with self._file() as file:
            return iter(list(file))

    def __len__(self) -> int:
        with self._file() as file:
            return len(file)

    def __contains__(self, name: object) -> bool:
        return name in list(self)

    def __repr__(self) -> str:
        return f"StoredRecords({os.fspath(self.path)!r})"

    def between(self, name: str, begin: float, end: float) -> Any:
        """The part of a record whose times t are ``begin < t <= end``, ms; both are multiples of ``dt``."""
        return self._read(name, begin, end)

    def time(self, name: str) -> Tensor:
        """The times at which the record was taken, ms, float64."""
        with self._file() as file:
            every, dt = int(self._group(file, name).attrs["every"]), float(file.attrs["dt"])
            start = int(file.attrs["start"])
            number = torch.arange(start + 1, start + int(file.attrs["steps"]) + 1)
        return number[number % every == 0].double() * dt

    @property
    def attributes(self) -> dict[str, Any]:
        """``model``, ``dt`` (ms), ``start``, ``steps``, ``loop``, ``ended`` and ``version``."""
        with self._file() as file:
            found = {name: value for name, value in file.attrs.items() if name != "format"}
        return {name: value.item() if hasattr(value, "item") else value for name, value in found.items()}

    def _file(self) -> Any:
        return _h5py("load_records(path=...)").File(self.path, "r")

    def _group(self, file: Any, name: str) -> Any:
        if name not in file:
            raise KeyError(f"{name!r} was not recorded; records: {', '.join(map(repr, file)) or 'none'}")
        return file[name]

    def _read(self, name: str, begin: float | None, end: float | None) -> Any:
        with self._file() as file:
            group, dt = self._group(file, name), float(file.attrs["dt"])
            first, last = int(file.attrs["start"]), int(file.attrs["start"] + file.attrs["steps"])
            low = first if begin is None else max(first, whole_steps(begin, dt, "between(begin=...)"))
            high = last if end is None else min(last, whole_steps(end, dt, "between(end=...)"))
            high = max(low, high)
            if group.attrs["kind"] == "spikes":
                shape = tuple(map(int, group.attrs["shape"]))
                rows = slice(_position(group["step"], low), _position(group["step"], high))
                step, train = (torch.from_numpy(group[part][rows]) for part in ("step", "train"))
                return Spikes.of_trains(step, train, shape, dt, low, high)
            every = int(group.attrs["every"])
            return _values(group, slice(low // every - first // every, high // every - first // every))


def _position(steps: Any, number: int) -> int:
    """How many entries of an ascending data set are at most ``number``, reading only what the search needs."""
    low, high = 0, len(steps)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if steps[middle] <= number else (low, middle)
    return low


def _values(group: Any, rows: slice) -> Any:
    if group.attrs.get("kind") == "values" and not group.attrs["structured"]:
        return torch.from_numpy(group["values"][rows])
    return {
        name: torch.from_numpy(item[rows]) if hasattr(item, "shape") else _values(item, rows)
        for name, item in group.items()
    }


def load_records(path: str | os.PathLike[str]) -> StoredRecords:
    """Open the records that `simulate(..., stream=path)` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no records of this format.
        ImportError: h5py is not installed.
    """
    h5py = _h5py("load_records(path=...)")
    if not Path(path).exists():
        raise FileNotFoundError(f"`load_records(path=...)`: there is no file {os.fspath(path)!r}")
    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("format")
    except OSError as error:
        raise ValueError(
            f"`load_records(path=...)`: expected HDF5, but {os.fspath(path)!r} cannot be read: {error}"
        ) from error
    if found != _FORMAT:
        raise ValueError(f"`load_records(path=...)`: expected format {_FORMAT!r}, got {found!r}")
    return StoredRecords(path)
