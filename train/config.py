"""Settings: nested frozen records, presets to start from, `--set a.b=c`, `--config FILE`, and JSON.

A record is a frozen dataclass whose fields are plain values or further records. A setting is named by its path,
`optim.lr`, or by any end of it that names one setting alone, `lr`.
"""

import dataclasses
import difflib
import json
import math
import pathlib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping

from train.errors import Refused

Config = typing.TypeVar("Config")  # of a command: a frozen dataclass


class ConfigError(Refused):
    """A setting that does not exist or breaks a rule; the message names value, rule and remedy."""


# Rules ---------------------------------------------------------------------------------------------------------------


def check(record, rules: Iterable[tuple[str, bool, str]]) -> None:
    """Raises ConfigError for the first of (field, whether it holds, rule) that does not hold. For `__post_init__`."""
    for field, holds, rule in rules:
        if not holds:
            raise ConfigError(f"{field} = {getattr(record, field)}: {rule}")


def positive(record, *fields: str) -> list[tuple[str, bool, str]]:
    """Rules: at least 1."""
    return [(field, getattr(record, field) >= 1, "at least 1") for field in fields]


def not_negative(record, *fields: str) -> list[tuple[str, bool, str]]:
    """Rules: not below 0."""
    return [(field, getattr(record, field) >= 0, "not below 0") for field in fields]


def shares(record, *fields: str) -> list[tuple[str, bool, str]]:
    """Rules: from 0 to 1."""
    return [(field, 0 <= getattr(record, field) <= 1, "from 0 to 1") for field in fields]


def one_of(record, field: str, known: Iterable[str]) -> tuple[str, bool, str]:
    """Rule: one of the known names."""
    return field, getattr(record, field) in known, "one of " + ", ".join(known)


def voxel_sizes(record, *fields: str) -> list[tuple[str, bool, str]]:
    """Rules: an extent of voxels in metres."""
    return [(field, 0.001 <= getattr(record, field) <= 1, "from 1 mm to 1 m") for field in fields]


def seed(record, field: str = "seed") -> tuple[str, bool, str]:
    """Rule: a seed of torch's generators and of keyed ones."""
    return field, 0 <= getattr(record, field) < 2**63, "a whole number from 0 to 2^63 - 1"


def workers(record, field: str = "workers") -> tuple[str, bool, str]:
    """Rule: a number of threads."""
    return field, 0 <= getattr(record, field) <= 64, "from 0 to 64"


# Choosing ------------------------------------------------------------------------------------------------------------


def resolve(
    preset: str, assignments: Iterable[str], presets: Mapping[str, Config], file: pathlib.Path | None = None
) -> Config:
    """A preset, with the settings of a file, with `key=value` assignments.

    Raises ConfigError for an unknown preset or key, or a bad value.
    """
    if preset not in presets:
        raise ConfigError(f"--preset {preset}: {_hint(preset, presets)}")
    config = presets[preset]
    if file is not None:
        config = _with_values(config, _read_settings(file, type(config)))
    kinds, values = leaves(type(config)), {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: needs key=value")
        path = _path_of(text, key, kinds)
        values[path] = _parse(text, value, kinds[path])
    return _with_values(config, values)


def change(config: Config, **values) -> Config:
    """A record with other values of settings, each named as in `--set`. Raises ConfigError."""
    kinds = leaves(type(config))
    return _with_values(config, {_path_of(key, key, kinds): value for key, value in values.items()})


def leaves(kind: type, prefix: str = "") -> dict[str, type]:
    """Path of every setting of a record, and the type of its value."""
    found = {}
    for name, field in typing.get_type_hints(kind).items():
        inner = dataclasses.is_dataclass(field)
        found |= leaves(field, f"{prefix}{name}.") if inner else {f"{prefix}{name}": field}
    return found


def _path_of(text: str, key: str, kinds: Mapping[str, type]) -> str:
    """The one setting whose path is `key` or ends in it."""
    if key in kinds:
        return key
    ends = [path for path in kinds if path.endswith(f".{key}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ConfigError(f"--set {text}: {key} is {' and '.join(ends)}: name one of them")
    short = {path.rpartition(".")[2]: path for path in kinds}
    names = short if "." not in key else dict(zip(kinds, kinds, strict=True))
    close = difflib.get_close_matches(key, names, 1, 0.5)
    known = f"did you mean {names[close[0]]}?" if close else "known: " + ", ".join(kinds)
    raise ConfigError(f"--set {text}: no such key; {known}")


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.5)
    return f"did you mean {close[0]}?" if close else "known: " + ", ".join(known)


def _parse(text: str, value: str, kind: type):
    if isinstance(kind, types.UnionType):
        if value.lower() == "none":
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if typing.get_origin(kind) is tuple:
        return tuple(_parse(text, part.strip(), typing.get_args(kind)[0]) for part in value.split(",") if part.strip())
    if kind is bool:
        return _parse_bool(text, value)
    try:
        parsed = kind(value)
    except ValueError:
        raise ConfigError(f"--set {text}: {value!r} is not a {'whole number' if kind is int else 'number'}") from None
    if kind is float and not math.isfinite(parsed):
        raise ConfigError(f"--set {text}: must be finite")
    return parsed


def _parse_bool(text: str, value: str) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if value.lower() not in known:
        raise ConfigError(f"--set {text}: {value!r} is neither true nor false")
    return known[value.lower()]


def _with_values(config: Config, values: Mapping[str, object]) -> Config:
    """A record with other values at the given paths; its rules are checked with all of them in place."""
    own, inner = {}, {}
    for path, value in values.items():
        name, dot, rest = path.partition(".")
        if dot:
            inner.setdefault(name, {})[rest] = value
        else:
            own[name] = value
    own |= {name: _with_values(getattr(config, name), below) for name, below in inner.items()}
    return dataclasses.replace(config, **own) if own else config


# Files ---------------------------------------------------------------------------------------------------------------


def to_plain(config) -> dict:
    """A record as JSON values."""
    return dataclasses.asdict(config)


def flatten(plain: Mapping, prefix: str = "") -> dict[str, object]:
    """Path -> value of everything in nested dicts."""
    flat = {}
    for name, value in plain.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def from_plain(plain: Mapping, kind: type[Config]) -> Config:
    """The record that `to_plain` made. Raises ConfigError where its settings are not this version's."""
    kinds, flat = leaves(kind), flatten(plain)
    if set(flat) != set(kinds):
        odd = ", ".join(sorted(set(flat) ^ set(kinds)))
        raise ConfigError(
            f"a configuration of another version, with other settings ({odd}): use the gen4d that wrote it"
        )
    return _with_values(kind(), {path: _of_json(path, value, kinds[path]) for path, value in flat.items()})


def _read_settings(file: pathlib.Path, kind: type) -> dict[str, object]:
    """Path -> value of a JSON or TOML file of settings, or of a run's config.json. Raises ConfigError."""
    try:
        plain = tomllib.loads(file.read_text()) if file.suffix == ".toml" else json.loads(file.read_text())
    except OSError as error:
        raise ConfigError(f"--config {file}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"--config {file}: neither JSON nor TOML ({error}): give a run's config.json") from None
    if not isinstance(plain, dict):
        raise ConfigError(f"--config {file}: holds a {type(plain).__name__}, not settings: give a run's config.json")
    kinds, values = leaves(kind), {}
    for path, value in flatten(plain.get("settings", plain)).items():
        if path not in kinds:
            raise ConfigError(f"--config {file}: no setting {path} here; {_hint(path, kinds)}")
        values[path] = _of_json(f"--config {file}: {path}", value, kinds[path])
    return values


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _of_json(name: str, value, kind: type):
    """A JSON value as the type of a setting. Raises ConfigError."""
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_of_json(name, part, typing.get_args(kind)[0]) for part in value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind is float and (whole or isinstance(value, float)):
        return float(value)
    if isinstance(value, kind if isinstance(kind, type) else ()) and (kind is not int or whole):
        return value
    raise ConfigError(f"{name}: {value!r} is not {_KINDS.get(kind, 'a list')}")
