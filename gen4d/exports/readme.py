"""README.md of a data set: front matter as Hugging Face reads it, figures, terms in words, how to build it and read it.

Whether the shards may be published is told by their sources, as dataset.json has them: each is the user's own, or has a
licence that lets everybody pass it on, or the shards stay where they are.
"""

import collections
import json
import re
from typing import NamedTuple

from gen4d.report.summary import counted, format_bytes
from gen4d.shards import Dataset
from gen4d.shards.manifest import CARD

README, CROISSANT, ROWS, PICTURE = CARD
MARK = "<!-- written by gen4d card -->"  # which card.py replaces by one with hashes
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**9, "n>1M"))
_WHAT = {
    "moving": "Shapes move through static scans; which points of two frames are the same is known exactly.",
    "frames": "Neighbouring depth images of static scans, with their poses and the points that correspond.",
    "sweeps": "Neighbouring lidar sweeps, with their poses and the points that correspond.",
    "views": "Shapes, turned, shifted and scaled from frame to frame; which points are the same is known exactly.",
    "scans": "Labelled scans, prepared for training.",
}
_PLAN = "| `build.json` | which scans go to which shard |"
_MADE_OF = {"moving": "scans and shapes", "views": "shapes"}  # others: scans
_PAPER = {
    "moving": "Y. Chen, M. Nießner, A. Dai: 4DContrast: Contrastive Learning with Dynamic Correspondences for 3D Scene "
    "Understanding. ECCV 2022.",
    "others": "S. Huang, Y. Xie, S.-C. Zhu, Y. Zhu: Spatio-temporal Self-Supervised Representation Learning for 3D "
    "Point Clouds. ICCV 2021.",
}


class Terms(NamedTuple):
    """What the sources of a data set allow. known: whether it says what they are; free: whether each is the user's own
    or has a licence that lets everybody pass it on; licences: SPDX identifiers; sources: as in dataset.json."""

    known: bool
    free: bool
    licences: tuple[str, ...]
    sources: tuple[dict, ...]

    @property
    def own(self) -> bool:
        """Whether all of it is the user's own."""
        return self.free and not self.licences

    @property
    def closed(self) -> bool:
        """Whether something of it may not be passed on, as far as is known."""
        return self.known and not self.free


def terms_of(manifest: dict) -> Terms:
    """What the sources of a data set allow, by what its dataset.json says of them."""
    sources = tuple(manifest.get("sources") or ())
    free = bool(sources) and all(one["licence"] or one["terms"] == "yours" for one in sources)
    licences = sorted({one["licence"] for one in sources if one["licence"]})
    return Terms(bool(sources), free, tuple(licences), sources)


def title(terms: Terms) -> str:
    """What the data set is called: after its sources, if they are not the user's own."""
    names = [_text(one["title"]) for one in terms.sources if one["terms"] != "yours"]
    return f"4D sequences from {' and '.join(names)}" if names else "4D sequences"


def _text(text: str) -> str:
    """A text of the manifest, which users may have written, as one line of Markdown."""
    return " ".join(text.split()).replace("<", "&lt;")


def _kind(dataset: Dataset, rows: list[dict]) -> str:
    return rows[0]["kind"] if rows else dataset.manifest.get("kind", "moving")


def summary(dataset: Dataset, rows: list[dict]) -> str:
    """What the data set holds, in two sentences."""
    totals = dataset.manifest["totals"]
    scans = counted(totals["scans"], "shape" if _kind(dataset, rows) == "views" else "scan")
    shards = "HDF5" if "exported" in dataset.manifest else "Zarr"
    return f"{_WHAT[_kind(dataset, rows)]} {counted(len(rows), 'sequence')} of {scans}, in {shards} shards."


def readme(dataset: Dataset, terms: Terms, rows: list[dict], recipe: bool, shown: bool) -> str:
    """The text. rows: of sequences.jsonl; recipe: whether it is published without its shards; shown: with a picture."""
    of = _MADE_OF.get(_kind(dataset, rows), "scans")
    parts = [_front(terms, len(rows)), MARK, f"# {title(terms)}", summary(dataset, rows), _tiles(dataset, rows)]
    if shown:
        parts.append(f"![A sequence: its frames, and some points that correspond]({PICTURE})")
    parts += ["## Terms", _told(terms), _allowed(terms, recipe, of)]
    if recipe:
        parts += ["## Build it", _how_to_build(dataset, rows)]
    if rows:
        parts += ["## Read it", *_how_to_read(rows, "data/again" if recipe else ".")]
    parts += [
        "## Files",
        _files(dataset, recipe, terms.closed, shown),
        "## Made by",
        _made(dataset),
        "## Cite",
        cited(dataset, rows),
    ]
    return "\n\n".join(parts) + "\n"


def _front(terms: Terms, count: int) -> str:
    licence = terms.licences[0].lower() if terms.free and len(terms.licences) == 1 else "other"
    lines = [f"pretty_name: {json.dumps(title(terms))}"]
    lines += [] if terms.own else [f"license: {licence}"]
    lines += ["tags: [3d, 4d, point-cloud, self-supervised-learning, gen4d]"]
    lines += [f"size_categories: ['{next(name for most, name in _SIZES if count < most)}']"]
    lines += ["configs:", "- config_name: sequences", f"  data_files: {ROWS}"] if count else []
    return "\n".join(["---", *lines, "---"])


def _tiles(dataset: Dataset, rows: list[dict]) -> str:
    totals, points = dataset.manifest["totals"], sorted(count for row in rows for count in row["points"])
    frames = sum(row["frames"] for row in rows)
    middle = f"{points[len(points) // 2]:,}" if points else "-"
    cells = [totals["scans"], len(rows), frames, middle, format_bytes(totals["bytes"])]
    what = "shapes" if _kind(dataset, rows) == "views" else "scans"
    table = [
        f"| {what} | sequences | frames | points in a frame, median | shards |",
        "|---|---|---|---|---|",
        "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in cells) + " |",
    ]
    classes = collections.Counter(name for row in rows for name in row["class_names"])
    if classes:
        table += ["", "Classes: " + ", ".join(f"{_text(name)} {classes[name]:,}" for name in sorted(classes)) + "."]
    return "\n".join(table)


def _told(terms: Terms) -> str:
    """The terms of every source."""
    if not terms.known:
        return "The data set does not say what it was made from."
    lines = []
    for one in terms.sources:
        said = "of whoever built the data set" if one["terms"] == "yours" else _text(one["terms"])
        home = f" ({_text(one['home'])})" if re.match(r"https?://", one["home"]) else ""
        lines.append(f"- {one['role']}: **{_text(one['title'])}**{home}: {said}")
    return "\n".join(lines)


def _allowed(terms: Terms, recipe: bool, of: str) -> str:
    """What that means for the shards. of: what they were made of, in words."""
    holds = f"The shards hold the geometry of their {of}: whoever has a shard has their points."
    if terms.own:
        return (
            f"{holds} As far as gen4d knows, the {of} belong to whoever built the data set, who says how "
            "it may be used: by `license:` at the head of this file."
        )
    if terms.free:
        each = " and ".join(f"`{one}`" for one in terms.licences)
        return f"{holds} They may be passed on under the conditions of {each}, which go with them."
    if recipe:
        why = (
            "The terms above do not let everybody pass that on."
            if terms.known
            else "Whether that is allowed is not known."
        )
        return (
            f"{holds} {why} **Do not upload the shards.** Publish the recipe: the files below, which hold no points. "
            f"Everybody builds the same data, bit by bit, from their own copies of the {of}."
        )
    if terms.closed:  # an export, which others cannot build again
        return (
            f"{holds} The terms above do not let everybody pass that on. **Do not upload the shards.** `gen4d card` "
            "writes a recipe of the data set that this was exported from, which can be published."
        )
    return f"{holds} Before you publish them, find out whether the terms of the {of} let you."


def _how_to_build(dataset: Dataset, rows: list[dict]) -> str:
    folders = {"moving": "--scans my-scans --shapes my-shapes", "views": "--shapes my-shapes"}
    given = folders.get(_kind(dataset, rows), "--scans my-scans")
    return (
        "With gen4d, in the folder of this file:\n\n"
        f"```sh\ngen4d build --like dataset.json {given} \\\n  --out data/again\n```\n\n"
        "It first compares your files with the hashes of those that were used, by name, and ends in\n"
        f"`same hash as published: {dataset.digest}`."
    )


def _how_to_read(rows: list[dict], folder: str) -> list[str]:
    row, place = rows[0], "" if folder == "." else f"{folder}/"
    opened, package = "h5py.File(path)", "h5py"
    if row["shard"].endswith(".zip"):
        opened, package = 'zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")', "zarr"
    with_gen4d = f'''\
import gen4d

dataset = gen4d.open_dataset("{folder}")  # a folder or a URL
for sequence in dataset:
    first, last = sequence.frame(0), sequence.frame(sequence.t - 1)
    here, there = sequence.correspondences(0, sequence.t - 1)  # rows of points that correspond
    print(sequence.id, first.point[here].shape, last.point[there].shape)
'''
    without = f'''\
import numpy as np, {package}

path, s, frame = "{place}{row["shard"]}", {row["row"]}, 0  # shard and row of sequences.jsonl
g = {opened}
for a in range(*g["actor/start"][s : s + 2]):
    low, high = g["cloud/start"][g["actor/cloud"][a] :][:2]
    start, pose = g["actor/mask_start"][a, frame], g["actor/pose"][a, frame]
    if start >= 0:  # it is in this frame
        bits = g["actor/mask"][start : start + (high - low + 7) // 8]
        kept = np.unpackbits(bits, count=high - low).astype(bool)
        print(a, g["cloud/point"][low:high][kept] @ pose[:3, :3].T + pose[:3, 3])
'''
    same = "Points of two frames are the same if they have the same actor `a` and the same row in its cloud."
    if row["kind"] in ("frames", "sweeps"):
        same = "Points of two frames correspond if each is the other's nearest, at most `sequence/match_m` metres away."
    return [
        f"```python\n{with_gen4d}```",
        f"Without gen4d, the points of one frame with `{package}` and `numpy`. {same}",
        f"```python\n{without}```",
    ]


def _files(dataset: Dataset, recipe: bool, closed: bool, shown: bool) -> str:
    lines = [
        "| | |",
        "|---|---|",
        f"| `{ROWS}` | a row for every sequence: id, scan, class names, shapes, frames, points of each frame, place |",
        "| `dataset.json` | config, totals, and the hash of everything |",
        "| `export.json` | what it was exported from |" if "exported" in dataset.manifest else _PLAN,
        "| `shards/*.json` | what each shard holds, and the hashes of the files that were read |",
    ]
    lines += [] if recipe or closed else ["| `shards/*` else | the sequences |"]
    lines += [f"| `{CROISSANT}` | all of these with their hashes, in MLCommons' Croissant |"]
    return "\n".join(lines + ([f"| `{PICTURE}` | a picture |"] if shown else []))


def _made(dataset: Dataset) -> str:
    manifest = dataset.manifest
    made = ", ".join(f"{name} {version}" for name, version in sorted(manifest["versions"].items()))
    number = f", generator {manifest['generator']}" if manifest.get("generator") is not None else ""
    seed = f" Seed {manifest['seed']}." if manifest.get("seed") is not None else ""
    return (
        f"gen4d {manifest['gen4d']}{number}, with {made}.{seed} SHA-256 of the data set, as `dataset.json` holds it: "
        f"`{dataset.digest}`. `gen4d verify .` finds every changed bit."
    )


def cited(dataset: Dataset, rows: list[dict]) -> str:
    """What to cite, in two sentences."""
    paper = _PAPER["moving" if _kind(dataset, rows) == "moving" else "others"]
    of = _MADE_OF.get(_kind(dataset, rows), "scans")
    return f"The {of} as their home pages ask. The method: {paper}"
