"""A card for a data set that is to be published: what it holds, how to read it, and what may be passed on.

Four files beside dataset.json: README.md, as Hugging Face reads it, croissant.json, sequences.jsonl, a row a sequence,
and sequence.png. Shards hold the geometry of their scans. Where the terms of a source keep it from being passed on, the
card is one of the recipe: the .json files, from which `gen4d build --like` makes the same data of anybody's own copies.
"""

import hashlib
import json
import os
import pathlib
import re

import numpy as np

from gen4d import files
from gen4d.exports.croissant import croissant
from gen4d.exports.readme import (
    CROISSANT,
    MARK,
    PICTURE,
    README,
    ROWS,
    Terms,
    cited,
    readme,
    summary,
    terms_of,
    title,
)
from gen4d.report.draw import write as draw
from gen4d.sequence import Sequence
from gen4d.shards import Dataset
from gen4d.shards.manifest import CARD, sidecar_name

_LEFTOVER = re.compile(f"({'|'.join(map(re.escape, CARD))}){files.TEMPORARY}")
_SIDECAR = re.compile(r"\d{5,}\.json")
_UNFINISHED = "0" * 64
_STAMP = re.compile(r"<!-- written by gen4d card; SHA-256 of the rest (\w{64}), of croissant\.json (\w{64}) -->")


class CardError(ValueError):
    """A card that cannot be written; the message names the file and the remedy."""


def write_card(dataset: Dataset, out: pathlib.Path | None = None) -> tuple[pathlib.Path, Terms]:
    """Write the card of a data set beside its dataset.json, or with its recipe to another folder; returns the folder,
    and what the sources allow. The same data set gives the same bytes.

    Raises CardError where a README.md there is somebody else's, where it or croissant.json was changed by hand, where
    the folder holds another data set or its recipe, or where the data set is behind a URL and no folder is given.
    """
    beside = dataset.local and (out is None or (out.exists() and os.path.samefile(out, dataset.folder)))
    if out is None and not beside:
        raise CardError(f"{dataset.home.where()}: is behind a URL: give the folder of its card, --out")
    out = dataset.folder if beside else out
    terms = terms_of(dataset.manifest)
    _check(out, dataset, beside)
    recipe = not beside or (not terms.free and _has_recipe(dataset))
    files.make_folder(out)
    for path in files.leftovers(out, _LEFTOVER):
        files.remove(path)
    rows = list(_rows(dataset))
    text = readme(dataset, terms, rows, recipe, shown=terms.free and bool(rows))
    files.write(out / README, _stamped(text, _UNFINISHED))  # the first: by its stamp the folder is known as ours
    listed = {ROWS: b"".join(json.dumps(row).encode() + b"\n" for row in rows)}
    files.write(out / ROWS, listed[ROWS])
    if terms.free and rows:
        draw(dataset, range(len(dataset)), out / PICTURE)
        listed[PICTURE] = (out / PICTURE).read_bytes()
    else:
        files.remove(out / PICTURE)
    about = {"name": title(terms), "description": summary(dataset, rows), "citeAs": cited(dataset, rows)}
    described = croissant(dataset, about, terms, listed, shards=not recipe and not terms.closed)
    files.write(out / CROISSANT, described)
    if not beside:
        _copy_recipe(dataset, out)
    files.write(out / README, _stamped(text, _sha256(described)))
    return out, terms


def _stamped(text: str, described: str) -> bytes:
    """A README.md with hashes of what is written, in the place of its mark, so that changes by hand are seen later.
    described: the hash of croissant.json."""
    hashes = f"SHA-256 of the rest {_sha256(text.encode())}, of {CROISSANT} {described}"
    return text.replace(MARK, f"<!-- written by gen4d card; {hashes} -->").encode()


def _changed(out: pathlib.Path, text: str, stamp: re.Match) -> str:
    """Which file of a card was changed since it was written, if any. text: of README.md; stamp: the one in it."""
    if _sha256(text.replace(stamp[0], MARK).encode()) != stamp[1]:
        return README
    there = (out / CROISSANT).exists() and stamp[2] != _UNFINISHED
    return CROISSANT if there and files.sha256(out / CROISSANT) != stamp[2] else ""


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check(out: pathlib.Path, dataset: Dataset, beside: bool) -> None:
    """Raise CardError where something that is not of an earlier card would be overwritten."""
    there = [name for name in CARD if (out / name).exists()]
    text = (out / README).read_text("utf-8", "replace") if README in there else ""
    ours = _STAMP.search(text)
    if there and not ours:
        raise CardError(f"{out / there[0]}: is there already and not of gen4d card: rename it, or give another --out")
    if ours and (name := _changed(out, text, ours)):
        remedy = f"move {', '.join(there)} away, write the card, and put your changes into the new one"
        raise CardError(f"{out / name}: was changed since gen4d card wrote it: {remedy}")
    if beside:
        return
    if not _has_recipe(dataset):
        raise CardError(f"{dataset.home.where()}: is no build of gen4d, so there is no recipe: leave --out out")
    if any((out / "shards").glob("*.zarr.zip")) or any((out / "shards").glob("*.h5")):
        raise CardError(f"{out}: holds a data set: give an empty folder")
    recipe = out / "dataset.json"
    if recipe.exists() and recipe.read_bytes() != dataset.home.read("dataset.json"):
        raise CardError(f"{out}: holds the recipe of another data set: give another folder, or delete this one")
    if (odd := files.others(out)) and not ours:
        raise CardError(f"{out}: holds other files ({odd[0]}, {len(odd)} in all): give an empty folder")


def _has_recipe(dataset: Dataset) -> bool:
    """Whether gen4d build made it: then it can be built again."""
    return dataset.manifest.get("generator") is not None and "exported" not in dataset.manifest


def _copy_recipe(dataset: Dataset, out: pathlib.Path) -> None:
    """The .json files of a data set: all that `gen4d build --like` needs. Shards of an earlier recipe go."""
    files.make_folder(out / "shards")
    names = recipe_names(dataset)
    for path in sorted((out / "shards").iterdir()):
        if _SIDECAR.fullmatch(path.name) and f"shards/{path.name}" not in names:
            files.remove(path)
    for name in names:
        files.write(out / name, dataset.home.read(name))


def recipe_names(dataset: Dataset) -> list[str]:
    """Names of the files of a recipe, dataset.json last, as in a build."""
    return ["build.json", *(sidecar_name(n) for n in range(len(dataset.manifest["shards"]))), "dataset.json"]


def _rows(dataset: Dataset):
    """A row of sequences.jsonl for every sequence."""
    number = 0
    for shard in dataset.manifest["shards"]:
        for row in range(sum(count for _, count in shard["scans"])):
            sequence = dataset[number]
            yield {
                "id": sequence.id,
                "scan": sequence.scan,
                "kind": sequence.kind,
                "class_names": [mover.class_name for mover in sequence.movers],
                "shapes": [mover.shape for mover in sequence.movers],
                "frames": sequence.t,
                "points": _points(sequence),
                "shard": f"shards/{shard['file']}",
                "row": row,
            }
            number += 1


def _points(sequence: Sequence) -> list[int]:
    """How many points each frame has."""
    kept = sum(np.bitwise_count(actor.planes).sum(axis=1, dtype=np.int64) for actor in sequence.actors)
    return kept.tolist()
