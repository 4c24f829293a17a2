"""Where the workers' metrics live, and what becomes of those of a worker that is gone.

::

    <PROMETHEUS_MULTIPROC_DIR>/beamline-metrics-x7k2/    one run; locked for as long as any of its processes lives
        worker-1/  counter_4711.db  histogram_4711.db  gauge_livesum_4711.db …    written by that worker alone
        worker-2/  …
        archive -> archive-7                             a link that is replaced as a whole
        archive-7/ counter_archive.db  histogram_archive.db  included

The prometheus client writes one file a metric type and process and never removes those of counters and histograms: with
every worker that is replaced a scrape would become slower. So gunicorn's master *folds* what a dead worker left: its
counters and histograms are added to those of the archive before it, written as a new archive, and its folder is
removed. Its gauges go with it.

What a scrape promises meanwhile: every increment is in it once. It never waits for the master, nor the master for
it. A worker's folder is named by its age, which is used once in a run, as a pid is not; ``included`` names the folders
that an archive stands for, so that between the new link and the removal nothing counts twice. A scrape that finds
another link after it has read than before, or misses a file, starts again: folders are removed only after the link was
replaced, so with the same link before and after nothing was missing.

Everything here runs in the master before it has any thread, or in a scrape; nothing imports the declarations.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Read by the client whenever it opens a file; in each worker it names that worker's folder."""
_PREFIX: Final = "beamline-metrics-"
_WORKER: Final = "worker-"
_UNBORN: Final = "unborn-"
_ARCHIVE: Final = "archive"
_INCLUDED: Final = "included"
_SUMMED: Final = ("counter", "histogram")
_GAUGES: Final = ("gauge_livesum", "gauge_livemax", "gauge_livemostrecent")
_ALLOCATED_BYTES: Final = {
    **dict.fromkeys(_SUMMED, 512 * 1024),
    **dict.fromkeys(_GAUGES, 64 * 1024),
}
_ENTRY_BYTES: Final = 32
"""What an entry of the client's file needs at most beside its key."""
_ATTEMPTS: Final = 50
_PAUSE_SECONDS: Final = 0.002


class Unsettled(Exception):
    """Workers came and went faster than their files could be read."""


class MetricFiles:
    """The files of one run. Made by `create` in the master; a worker has them from `adopt` on."""

    def __init__(self, root: Path, lock: int | None = None) -> None:
        self.root: Final = root
        self._lock = lock

    # -- in gunicorn's master -----------------------------------------------------------------------

    @classmethod
    def create(cls, parent: Path | None) -> Self:
        """An empty folder of this run in ``parent`` (None: the system's temporary folder). Those of runs that are over
        are removed: their master was killed, or the machine went down. Raises OSError.

        The lock also tells systemd-tmpfiles that the folder is not forgotten, however old its files look.
        """
        parent = Path(tempfile.gettempdir()) if parent is None else parent.resolve()
        parent.mkdir(parents=True, exist_ok=True)
        for old in parent.glob(f"{_PREFIX}*"):
            _remove_unless_locked(old)
        for _ in range(_ATTEMPTS):
            root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            with contextlib.suppress(FileNotFoundError):
                if (lock := _lock(root)) is not None:
                    # The client looks for it when it is imported for the first time.
                    os.environ[VARIABLE] = str(root)
                    return cls(root, lock)
            # Another master that starts just now takes it for an old one.
            shutil.rmtree(root, ignore_errors=True)
        raise OSError(errno.ENOLCK, "folders cannot be locked there", str(parent))

    def adopt(self, age: int) -> None:
        """Called in a new worker: from now on its metrics are written into a folder of its own.

        The files are written full before they are mapped: writing into a mapped hole with the disk full ends a process
        with a SIGBUS. So it fails here, with an OSError, and the worker serves all the same; what it counts is lost.
        """
        global _of_this_worker  # a worker has one, from its fork on
        _of_this_worker = self
        folder = self.root / f"{_WORKER}{age}"
        unborn = self.root / f"{_UNBORN}{age}"  # a scrape shall not meet files that are still empty
        try:
            unborn.mkdir()
            for kind, size in _ALLOCATED_BYTES.items():
                (unborn / f"{kind}_{os.getpid()}.db").write_bytes(bytes(size))
            unborn.rename(folder)
        except OSError:
            shutil.rmtree(unborn, ignore_errors=True)
            count_in_memory()
            raise
        os.environ[VARIABLE] = str(folder)
        _count_as(os.getpid())

    def fold(self, living: Collection[int]) -> None:
        """Add what all but the workers of these ages left to the archive, and remove their folders. Raises OSError;
        what is not folded still counts, and the next fold takes it along.
        """
        for folder in self.root.glob(f"{_UNBORN}*"):  # of one that was killed before it had counted
            if int(folder.name.removeprefix(_UNBORN)) not in living:
                shutil.rmtree(folder, ignore_errors=True)
        names = {f"{_WORKER}{age}" for age in living}
        current = self._current()
        included = self._included(current)
        dead = [folder for folder in self._worker_folders() if folder.name not in names]
        fresh = [folder for folder in dead if folder.name not in included]
        if fresh:
            self._archive(current, fresh, [folder.name for folder in dead])
        for folder in dead:
            shutil.rmtree(folder, ignore_errors=True)
        if fresh and current is not None:
            shutil.rmtree(current, ignore_errors=True)

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.root, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- in a scrape --------------------------------------------------------------------------------

    def collect(self) -> Iterable[Metric]:
        """All metrics of the run, each increment once. Raises Unsettled."""
        from prometheus_client.multiprocess import MultiProcessCollector

        for _ in range(_ATTEMPTS):
            archive = self._current()
            with contextlib.suppress(FileNotFoundError):
                files = [str(file) for file in self._files(archive)]
                found: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
                if self._current() == archive:
                    return found
            time.sleep(_PAUSE_SECONDS)
        raise Unsettled("The workers' metric files did not hold still")

    # -- both ---------------------------------------------------------------------------------------

    def _current(self) -> Path | None:
        """The folder of the archive that holds now."""
        try:
            return self.root / (self.root / _ARCHIVE).readlink()
        except FileNotFoundError:
            return None

    @staticmethod
    def _included(archive: Path | None) -> frozenset[str]:
        """The workers' folders that an archive stands for and that may still be there."""
        return frozenset() if archive is None else frozenset(_lines(archive / _INCLUDED))

    def _worker_folders(self) -> list[Path]:
        return sorted(self.root.glob(f"{_WORKER}*"))

    def _files(self, archive: Path | None) -> list[Path]:
        """What makes up the metrics, given the archive."""
        included = self._included(archive)
        folders = [folder for folder in self._worker_folders() if folder.name not in included]
        if archive is not None:
            folders.append(archive)
        return [file for folder in folders for file in folder.iterdir() if file.suffix == ".db"]

    def _archive(self, current: Path | None, fresh: Iterable[Path], included: list[str]) -> None:
        """Make the archive that stands for ``current`` and what is ``fresh``."""
        number = 1 if current is None else int(current.name.rpartition("-")[2]) + 1
        new = self.root / f"{_ARCHIVE}-{number}"
        shutil.rmtree(new, ignore_errors=True)  # of an attempt that failed
        new.mkdir()
        sources = [*fresh, *([current] if current is not None else [])]
        for kind in _SUMMED:
            _write(new / f"{kind}_{_ARCHIVE}.db", _summed(sources, kind))
        (new / _INCLUDED).write_text("".join(f"{name}\n" for name in included))
        link = self.root / "archive.new"
        link.unlink(missing_ok=True)
        link.symlink_to(new.name)
        link.replace(self.root / _ARCHIVE)


_of_this_worker: MetricFiles | None = None


def of_this_worker() -> MetricFiles | None:
    """The files of the run that this worker belongs to; None outside of gunicorn."""
    return _of_this_worker


def count_in_memory() -> None:
    """Have metrics that are declared from now on write no files, although the variable is set, or was when the client
    was imported: it is meant for workers, and commands and other processes may have it in their environment, too."""
    from prometheus_client import values

    values.ValueClass = values.MutexValue


def _count_as(pid: int) -> None:
    """Have metrics that are declared from now on write the files of ``pid``. The client asks the system for it at every
    count, some seventeen times a request, in case that the process was forked: a worker never is."""
    from prometheus_client import values

    values.ValueClass = values.MultiProcessValue(lambda: pid)  # type: ignore[no-untyped-call]


def _summed(folders: Iterable[Path], kind: str) -> dict[str, float]:
    """The sum of each entry over all files of a kind. Buckets of a histogram are entries, not cumulated yet."""
    from prometheus_client.mmap_dict import MmapedDict

    totals: defaultdict[str, float] = defaultdict(float)
    for folder in folders:
        for file in folder.glob(f"{kind}_*.db"):
            entries = MmapedDict.read_all_values_from_file(str(file))  # type: ignore[no-untyped-call]
            for key, value, _timestamp, _position in entries:
                totals[key] += value
    return totals


def _write(path: Path, totals: dict[str, float]) -> None:
    from prometheus_client.mmap_dict import MmapedDict

    # As large as it can get, and written before it is mapped: see `MetricFiles.adopt`.
    path.write_bytes(bytes(_ENTRY_BYTES + sum(len(key.encode()) + _ENTRY_BYTES for key in totals)))
    entries = MmapedDict(str(path))  # type: ignore[no-untyped-call]
    for key, value in totals.items():
        entries.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    entries.close()  # type: ignore[no-untyped-call]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _lock(folder: Path) -> int | None:
    """Lock a folder for this process and those that it forks; None if somebody holds it, or it is gone."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(folder).st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _remove_unless_locked(folder: Path) -> None:
    with contextlib.suppress(OSError):  # another user's, or gone meanwhile
        if (lock := _lock(folder)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
