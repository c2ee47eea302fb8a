"""Every effect that gen4d has on a file system goes through here, so that tests can stop the world at each of them."""

import contextlib
import errno
import hashlib
import os
import pathlib
import re
import shutil
import socket
import threading
from collections.abc import Iterable, Mapping

try:
    import fcntl
except ImportError:
    raise ImportError("gen4d runs on Linux and macOS: this Python has no fcntl to lock files with") from None

CHUNK = 1 << 20
TEMPORARY = r"\.([A-Za-z0-9-]+\.)?\d+\.tmp"  # what follows a file's name until its content is whole
_LEFTOVER = re.compile(r"(build|dataset|export|parts|\d{5,})\.(json|zarr\.zip|h5)" + TEMPORARY)
_SCAFFOLD = re.compile(r"build\.lock|plan\.lock|parts\.json|part-\d+\.lock")
# What systems and editors leave beside data: hidden files (`._room.ply` of macOS among them), backups, caches.
_LITTER = re.compile(
    r"\..*|~\$.*|.*~|#.*#|thumbs\.db|desktop\.ini|icon\r|__macosx|@eadir|\$recycle\.bin|lost\+found", re.I
)


class BusyError(ValueError):
    """Another process works in the folder. holder: which, and what for, if it says so."""

    holder = "another process"


def effect(name: str, path: pathlib.Path) -> None:
    """Called before every effect with its name and path; tests replace it to kill, fail or record."""


def make_folder(path: pathlib.Path) -> None:
    """Create a folder and its parents, where they are not there yet, so that a power cut does not take them away."""
    if path.is_dir():
        return
    if path.exists() and not path.is_dir():  # another process may have made it just now
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
    temporary = path.with_name(f"{path.name}.{_here()}.{threading.get_native_id()}.tmp")
    try:
        _write_synced(temporary, (content,))
        effect("rename", path)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        _name(error, path, temporary)
        raise
    _sync_folder(path.parent)


def place(path: pathlib.Path, content: Iterable[bytes] | Mapping[str, bytes], scratch: pathlib.Path) -> None:
    """Write a file from its pieces, or a folder of files, so that its name holds all of it, also after a power cut.

    It is made in `scratch`, a folder of the same file system, and moved. What a kill leaves there may be thrown away.
    """
    temporary = scratch / path.name
    try:
        if isinstance(content, Mapping):
            make_folder(temporary)
            for name, piece in content.items():
                _write_synced(temporary / name, (piece,))
            _sync_folder(temporary)
        else:
            _write_synced(temporary, content)
        make_folder(path.parent)
        effect("rename", path)
        os.replace(temporary, path)
    except OSError as error:
        _name(error, path, temporary)
        raise
    _sync_folder(path.parent)


def _name(error: OSError, path: pathlib.Path, temporary: pathlib.Path) -> None:
    """Name the file that was to be written: a full disk names none, and nobody knows the temporary one."""
    if error.filename is None or str(temporary) in str(error.filename):
        error.filename, error.filename2 = str(path), None


def free_bytes(path: pathlib.Path) -> int:
    """Bytes that are free where a file or folder is, or will be."""
    return shutil.disk_usage(next(place for place in (path, *path.absolute().parents) if place.exists())).free


def remedy(error: OSError) -> str:
    """What a user can do where a file or folder cannot be written; empty where that is not known."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "free some space, or give another folder"
        case errno.ENOTDIR | errno.EISDIR | errno.EEXIST | errno.ENOTEMPTY | errno.ENAMETOOLONG:
            return "give another folder or name"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "give a folder that you may write to"
    return ""


def write_unsynced(path: pathlib.Path, content: bytes) -> None:
    """Write a file of a cache: its name holds the whole content, or nothing after a power cut or on an error.

    It is no effect of a build, which is the same without it.
    """
    temporary = path.with_name(f"{path.name}.{_here()}.{threading.get_native_id()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _here() -> str:
    """This process among those of all machines that share a file system."""
    return f"{re.sub('[^A-Za-z0-9]', '-', socket.gethostname())[:40]}-{os.getpid()}"


def _write_synced(path: pathlib.Path, pieces: Iterable[bytes]) -> None:
    effect("open", path)
    with open(path, "wb", buffering=0) as file:
        effect("write", path)
        for piece in pieces:
            view = memoryview(piece)
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


def remove_folder(path: pathlib.Path) -> None:
    """Remove a folder and all that is in it, if it is there."""
    if path.is_dir():
        effect("rmtree", path)
        shutil.rmtree(path)


def leftovers(folder: pathlib.Path, names: re.Pattern = _LEFTOVER) -> list[pathlib.Path]:
    """Temporary files that a killed writer left in a folder, sorted. Files of other names are not ours to remove.

    names: of temporary files, by default those of data sets.
    """
    return sorted(path for path in folder.glob("*.tmp") if names.fullmatch(path.name)) if folder.is_dir() else []


def own_leftovers(folder: pathlib.Path) -> list[pathlib.Path]:
    """Those of them that this process wrote."""
    return [path for path in leftovers(folder) if f".{_here()}." in path.name]


def scaffold(folder: pathlib.Path) -> list[pathlib.Path]:
    """Locks and notes that a build needs while it runs, sorted, and that a finished data set does not."""
    return sorted(path for path in folder.iterdir() if _SCAFFOLD.fullmatch(path.name)) if folder.is_dir() else []


def is_litter(relative: str) -> bool:
    """Whether a path within a folder is, or lies in, what a system or an editor left there."""
    return any(_LITTER.fullmatch(part) for part in relative.split("/"))


def others(folder: pathlib.Path) -> list[str]:
    """Names in a folder, sorted, but for locks, notes and temporary files of ours and what systems leave anywhere."""
    ours = (_SCAFFOLD, _LEFTOVER)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(name for name in names if not is_litter(name) and not any(one.fullmatch(name) for one in ours))


def sha256(path: pathlib.Path) -> str:
    """SHA-256 of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(folder: pathlib.Path, name: str = "build.lock", what: str = "", wait: bool = False):
    """Hold a lock of the folder. Where another living process holds it, wait, or raise BusyError at once, which says
    what it holds the lock for.

    The lock is the kernel's, on a file: it ends with its process and the children that it forked, so a dead one's is
    taken over.
    """
    path = folder / name
    effect("lock", path)
    with _take(path, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB) as file:
        try:
            _sign(file, f"{what}process {os.getpid()} on {socket.gethostname()}")
            yield
        finally:
            remove(path)


@contextlib.contextmanager
def shared(folder: pathlib.Path, what: str):
    """Hold the folder's lock together with others that hold it so. Raises BusyError where one holds it alone.

    Its file stays: whoever holds it alone next removes it.
    """
    path = folder / "build.lock"
    effect("lock", path)
    with _take(path, fcntl.LOCK_SH | fcntl.LOCK_NB) as file:
        _sign(file, what)
        yield


def is_held(path: pathlib.Path) -> bool:
    """Whether a living process holds the lock of a file."""
    try:
        with open(path, "r+") as file:  # NFS locks alone only what is open for writing
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _take(path: pathlib.Path, how: int):
    """The lock's file, open and locked."""
    while True:
        file = open(path, "a+")
        try:
            fcntl.flock(file, how)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    return file
            file.close()  # its holder removed it between our opening and locking
        except BlockingIOError:
            error = _busy(file, path)
            file.close()
            raise error from None


def _sign(file, text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()


def _busy(file, path: pathlib.Path) -> BusyError:
    file.seek(0)
    holder = file.read().strip() or BusyError.holder
    error = BusyError(f"{path.parent}: {holder} is building here; wait, or use another --out")
    error.holder = holder
    return error
