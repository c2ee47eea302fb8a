"""A data set's own files around its shards: where each lies, and reading what it says with every check."""

import hashlib
import pathlib

from gen4d.shards.format import (
    HDF5_SUFFIX,
    SHARD_SUFFIX,
    FormatError,
    check_version,
    unseal,
    unseal_digest,
)
from gen4d.shards.home import Home

ORIGIN = ("role", "name", "title", "home", "terms", "licence")  # what a data set says of each that it was made from
CARD = ("README.md", "croissant.json", "sequences.jsonl", "sequence.png")  # what gen4d card writes beside dataset.json


def shard_path(out: pathlib.Path, number: int) -> pathlib.Path:
    """File of a shard."""
    return out / "shards" / f"{number:05d}{SHARD_SUFFIX}"


def sidecar_path(out: pathlib.Path, number: int) -> pathlib.Path:
    """File that says what a shard holds, and its hash."""
    return out / sidecar_name(number)


def read_build(out: pathlib.Path) -> dict | None:
    """The content of build.json, or None where there is none. Raises FormatError."""
    path = out / "build.json"
    if not path.exists():
        return None
    stored = unseal(path.read_bytes(), str(path))
    check_version(stored, str(path))
    return stored


def find_sidecar(out: pathlib.Path, number: int) -> tuple[dict, str] | None:
    """What a finished shard's .json says, and its hash; None where there is none or the shard disagrees with it."""
    path = sidecar_path(out, number)
    try:
        content = path.read_bytes()
        sidecar = unseal(content, str(path))
        size = (out / "shards" / sidecar["file"]).stat().st_size
    except (FormatError, FileNotFoundError):
        return None
    return (sidecar, hashlib.sha256(content).hexdigest()) if sidecar["bytes"] == size else None


def sidecar_name(number: int) -> str:
    """Name within its data set of the file that says what a shard holds."""
    return f"shards/{number:05d}.json"


def read_sidecar(home: Home, number: int) -> dict:
    """What a shard's .json says. Raises FormatError where it is missing or damaged."""
    name = sidecar_name(number)
    where = home.where(name)
    try:
        return unseal(home.read(name), where)
    except FileNotFoundError:
        raise FormatError(f"{where}: the shard's description is missing; restore it from a copy or rebuild") from None


def brief(sidecar: dict) -> dict:
    """What is kept in memory of a shard's .json: all but the list of shapes, most of it and of a gigabyte for 100,000
    scans."""
    return {name: value for name, value in sidecar.items() if name != "shapes"}


def read_manifest(home: Home) -> tuple[dict, str]:
    """The content of dataset.json and its own hash."""
    where = home.where("dataset.json")
    try:
        content = home.read("dataset.json")
    except FileNotFoundError:
        unfinished = "the build is not finished: run the same gen4d build again, or merge its parts"
        remedy = unfinished if _is_there(home, "build.json") else "not a gen4d data set"
        raise FormatError(f"{where}: not there; {remedy}") from None
    except NotADirectoryError:
        raise FormatError(f"{home.where()}: is a file: give the folder of a data set") from None
    except OSError as error:
        raise FormatError(f"{where}: cannot be read: {error.strerror}") from None
    manifest, digest = unseal_digest(content, where)
    check_version(manifest, where)
    if not _is_sound(manifest):
        raise FormatError(f"{where}: lacks what a data set has, or has it in another form: not written by gen4d")
    return manifest, digest


def _is_there(home: Home, name: str) -> bool:
    try:
        home.read(name)
    except FileNotFoundError:
        return False
    except (OSError, FormatError):
        return True
    return True


def _is_sound(manifest: dict) -> bool:
    """Whether everything that readers take from a manifest is there and of its type."""
    try:
        shards, totals, config = manifest["shards"], manifest["totals"], manifest["config"]
        if not isinstance(config, dict):
            return False
        kinds = [
            (shards, list),
            (totals["sequences"], int),
            (config.get("cell_m", 0.0), int | float),
            (manifest["gen4d"], str),
        ]
        kinds += [(manifest["versions"], dict), (manifest["shapes"], dict)]
        for entry in shards:
            kinds += [(entry["file"], str), (entry["bytes"], int), (entry["scans"], list)]
            kinds += [(entry["content_sha256"], str), (entry["sidecar_sha256"], str)]
            kinds += [(name, str) for name, _ in entry["scans"]] + [(count, int) for _, count in entry["scans"]]
        kinds += [(one[name], str) for one in manifest.get("sources", []) for name in ORIGIN]
        whole = all(isinstance(value, kind) for value, kind in kinds)
        counts = [count for entry in shards for _, count in entry["scans"]] if whole else []
        return whole and all(0 <= n < 2**31 for n in counts) and all(_is_plain(entry["file"]) for entry in shards)
    except (KeyError, TypeError, ValueError):
        return False


def _is_plain(name: str) -> bool:
    return name.isprintable() and not set(name) & set("/\\") and name.endswith((SHARD_SUFFIX, HDF5_SUFFIX))
