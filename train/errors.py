"""The base of everything that a user can mend."""

LEFT_ALONE = 75  # exit code of a process that ends because another one of its run has; of sysexits.h, a passing failure


class Refused(ValueError):
    """Input or a setting that is refused; the message names value, rule and remedy. Commands print it as one line."""


def reason(error: Exception) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return next(iter(str(error).split("\n")), "").strip() or type(error).__name__
