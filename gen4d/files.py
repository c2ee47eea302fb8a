"""Every effect that gen4d has on a file system goes through here, so that tests can stop the world at each of them."""

import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import re
import socket

CHUNK = 1 << 20
_LEFTOVER = re.compile(r"(build|dataset|export|\d{5})\.(json|zarr\.zip|h5)\.\d+\.tmp")


class BusyError(ValueError):
    """Another process works in the folder."""


def effect(name: str, path: pathlib.Path) -> None:
    """Called before every effect with its name and path; tests replace it to kill, fail or record."""


def make_folder(path: pathlib.Path) -> None:
    """Create a folder and its parents, where they are not there yet, so that a power cut does not take them away."""
    if path.is_dir():
        return
    if path.exists():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    make_folder(path.parent)
    effect("mkdir", path)
    path.mkdir(exist_ok=True)
    with contextlib.suppress(PermissionError):  # a parent that only lets us pass
        _sync_folder(path.parent)


def write(path: pathlib.Path, content: bytes) -> None:
    """Write a file so that its name holds the whole content or what it held before, also after a power cut.

    The content goes to a temporary file beside it, reaches the disk, and takes the name by a rename that reaches the
    disk too. On an error the temporary file is removed; what a kill leaves behind is `leftovers`.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        _write_synced(temporary, content)
        effect("rename", path)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _write_synced(path: pathlib.Path, content: bytes) -> None:
    effect("open", path)
    with open(path, "wb", buffering=0) as file:
        view = memoryview(content)
        effect("write", path)
        while view:
            view = view[file.write(view) :]
        effect("fsync", path)
        os.fsync(file.fileno())


def _sync_folder(folder: pathlib.Path) -> None:
    effect("fsync", folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: pathlib.Path) -> None:
    """Remove a file, if it is there."""
    effect("unlink", path)
    path.unlink(missing_ok=True)


def leftovers(folder: pathlib.Path) -> list[pathlib.Path]:
    """Temporary files that a killed writer left in a folder, sorted. Files of other names are not ours to remove."""
    return sorted(path for path in folder.glob("*.tmp") if _LEFTOVER.fullmatch(path.name)) if folder.is_dir() else []


def sha256(path: pathlib.Path) -> str:
    """SHA-256 of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(folder: pathlib.Path):
    """Hold the folder's lock. Raises BusyError at once where another living process holds it.

    The lock is the kernel's, on `build.lock`: it ends with its process, so a dead one's is taken over.
    """
    path = folder / "build.lock"
    effect("lock", path)
    with _take(path) as file:
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield
        finally:
            remove(path)


def _take(path: pathlib.Path):
    """The lock's file, open and locked."""
    while True:
        file = open(path, "a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
            file.close()  # its holder removed it between our opening and locking
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise BusyError(f"{path.parent}: {holder} is building here; wait, or use another --out") from None
