"""Files that operators change: locked while they are read and written again, and replaced as a whole.

Whoever reads such a file, at any moment and after any crash, finds the old content or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

OWNER_ONLY: Final = 0o600
_PATIENCE_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.01


class FileUnavailable(Exception):
    """The file cannot be read or written, and is as it was unless the text, which names it, says otherwise."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[Path]:
    """Nobody else is inside the block for the same file; yields its real path. Raises FileUnavailable.

    The lock is a file of its own beside it (``<name>.lock``), since the file itself is replaced. It is kept: removing
    it would let two in at once.
    """
    real = Path(os.path.realpath(path))
    if not real.parent.is_dir():
        raise FileUnavailable(f"{path}: there is no folder {real.parent}")
    try:
        lock = os.open(_beside(real, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, OWNER_ONLY)
    except OSError as error:
        raise FileUnavailable(f"{path} cannot be locked: {error.strerror}") from None
    try:
        try:
            wait_for_lock(lock)
        except OSError as error:
            raise FileUnavailable(f"{path} cannot be locked: {error.strerror}") from None
        yield real
    finally:
        os.close(lock)


def wait_for_lock(descriptor: int) -> None:
    """Take the exclusive lock of an open file. Raises OSError; EAGAIN after some seconds in vain."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise BlockingIOError(0, "somebody else holds the lock") from None
            time.sleep(_PAUSE_SECONDS)


def read(path: Path) -> bytes | None:
    """The content; None without a file. Raises FileUnavailable."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileUnavailable(f"{path} cannot be read: {error.strerror}") from None


def replace(path: Path, content: bytes) -> None:
    """Put ``content`` in the file's place, on the disk when this returns. Only while `locked`. Raises FileUnavailable.

    A new file can be read by its owner only. One that exists keeps its owner and mode: a gateway that runs as another
    user must not find itself locked out.
    """
    new = _beside(path, "new")
    try:
        with contextlib.suppress(FileNotFoundError):
            new.unlink()  # of a command that was killed
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OWNER_ONLY)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                _keep_owner_and_mode(file.fileno(), path)
                os.fsync(file.fileno())
            new.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink()
            raise
    except OSError as error:
        raise FileUnavailable(f"{path} cannot be written: {error.strerror}") from None
    try:
        sync_folder(path.parent)
    except OSError as error:
        why = f"{path} was replaced, but might not survive a power failure: {error.strerror}"
        raise FileUnavailable(why) from None


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power failure. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _keep_owner_and_mode(descriptor: int, path: Path) -> None:
    try:
        old = path.stat()
    except FileNotFoundError:
        return
    new = os.fstat(descriptor)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        try:
            os.fchown(descriptor, old.st_uid, old.st_gid)
        except PermissionError as error:
            why = f"its owner (uid {old.st_uid}, gid {old.st_gid}) cannot be kept; run as that user"
            raise PermissionError(error.errno, why) from None
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))  # after the owner, whose change may clear bits


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")
