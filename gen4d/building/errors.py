"""What can go wrong with a build as a whole."""

import pathlib


class BuildError(ValueError):
    """The build cannot go on; the message names what, why and the remedy."""


class GivenError(BuildError):
    """A folder or an option that a kind of sequences needs, or does not have."""


def unwritable(error: OSError, out: pathlib.Path) -> BuildError:
    """The error of a build that cannot write."""
    return BuildError(
        f"{error.filename or out}: cannot be written ({error.strerror or error}): free some space or give another "
        "folder; what is done is valid, and the same command continues"
    )
