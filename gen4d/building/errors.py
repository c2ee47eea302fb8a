"""What can go wrong with a build as a whole."""

import pathlib

from gen4d import files, sources


class BuildError(ValueError):
    """The build cannot go on; the message names what, why and the remedy."""


class GivenError(BuildError):
    """A folder or an option that a kind of sequences needs, or does not have."""


_CONTINUES = "what is done is valid, and the same command continues"


def unwritable(error: OSError, out: pathlib.Path, then: str = _CONTINUES) -> Exception:
    """The error of a build that cannot write, or cannot read for now; a reader of our lines that went away is none, and
    stays what it is. then: what is left."""
    if isinstance(error, BrokenPipeError):
        return error
    if isinstance(error, sources.PassingError):
        return BuildError(
            f"{error.filename}: cannot be used now ({error.strerror}): a disk or the network fails, a disk is full, or "
            f"too many files are open; {then}; if it stays so, replace the file or take it away"
        )
    remedy = files.remedy(error) or "free some space, or give another folder"
    return BuildError(f"{error.filename or out}: cannot be written ({error.strerror or error}): {remedy}; {then}")
