"""The base of everything that a user can mend."""


class Refused(ValueError):
    """Input or a setting that is refused; the message names value, rule and remedy. Commands print it as one line."""
