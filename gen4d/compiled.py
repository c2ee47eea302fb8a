"""Where Numba keeps compiled loops: beside the code or in the user's caches, as it does by itself, or, where neither
can be written (a container that runs as another user), in a folder of the user's own among the temporary ones.

This runs when gen4d is imported, before Numba is. Child processes inherit the place.
"""

import os
import pathlib
import stat
import sys

_PACKAGE = os.path.dirname(os.path.abspath(__file__))


def keep() -> str:
    """Give Numba a place where it has none. Returns what a user should know of that, or nothing."""
    places = [os.environ.get("NUMBA_CACHE_DIR", ""), os.path.join(_PACKAGE, "__pycache__"), _users()]
    if any(place and _writable(place) for place in places):
        return ""
    os.environ["NUMBA_CACHE_DIR"] = place = _temporary()
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = place  # it has read the variable already
    return f"{_PACKAGE} and {_users() or 'a home'} cannot be written: compiled loops are kept in {place}"


def _users() -> str:
    """The folder that Numba takes in the user's caches, empty for a user without a home."""
    home = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.path.expanduser(home)
    return "" if folder.startswith("~") else os.path.join(folder, "numba")


def _writable(folder: str) -> bool:
    """Whether files can be written to a folder, which may still have to be made."""
    while not os.path.lexists(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def _temporary() -> str:
    """A folder that is this user's alone, the same in every run if possible: what lies there is run."""
    import tempfile

    folder = os.path.join(tempfile.gettempdir(), f"gen4d-numba-{os.getuid()}")
    try:
        os.mkdir(folder, 0o700)
    except OSError:
        if not _private(folder):
            return tempfile.mkdtemp(prefix="gen4d-numba-")
    return folder


def _private(folder: str) -> bool:
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022


def is_cold(kernel) -> bool:
    """Whether a compiled loop has to be compiled first: Numba has no signature of it in memory nor in its cache."""
    if not hasattr(kernel, "signatures"):
        return False  # jit is disabled
    name = f"{kernel.py_func.__module__.rpartition('.')[2]}.{kernel.py_func.__name__}"
    kept = pathlib.Path(kernel.stats.cache_path or ".").glob(f"{name}*.nbc")
    return not kernel.signatures and not any(kept)


NOTE = keep() if hasattr(os, "getuid") else ""
