"""croissant.json: files of a data set and columns of its sequences.jsonl, in the terms of MLCommons' Croissant 1.1."""

import hashlib
import json
from collections.abc import Mapping

from gen4d.exports.readme import Terms
from gen4d.shards import Dataset
from gen4d.shards.manifest import sidecar_name

VERSION = "http://mlcommons.org/croissant/1.1"
# Column of sequences.jsonl: its type, whether it is a list, and what it means.
COLUMNS = {
    "id": ("sc:Text", False, "Name of the scan and number of the sequence."),
    "scan": ("sc:Text", False, "Name of the scan, or of the shape."),
    "kind": ("sc:Text", False, "moving, frames, sweeps or views."),
    "class_names": ("sc:Text", True, "Class of every shape that moves."),
    "shapes": ("sc:Text", True, "Name of every shape that moves."),
    "frames": ("sc:Integer", False, "Number of frames."),
    "points": ("sc:Integer", True, "Number of points of each frame."),
    "shard": ("sc:Text", False, "File that holds the sequence."),
    "row": ("sc:Integer", False, "Row of the sequence in its shard."),
}
_OF_CROISSANT = (
    "arrayShape citeAs column containedIn data dataType equivalentProperty examples extract field fileObject "
    "fileProperty fileSet format includes isArray isLiveDataset jsonPath key md5 parentField path recordSet references "
    "regex repeated replace samplingRate separator source subField transform"
).split()
_TYPES = {
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".zip": "application/zip",
    ".png": "image/png",
}


def _context() -> dict:
    """What the keys of the file mean: those of schema.org, and Croissant's own."""
    own: dict = {name: f"cr:{name}" for name in _OF_CROISSANT}
    own |= {name: {"@id": f"cr:{name}", "@type": "@json"} for name in ("data", "examples")}
    own |= {"dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "conformsTo": "dct:conformsTo"}
    own |= {"cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/"}
    own |= {"dct": "http://purl.org/dc/terms/", "sc": "https://schema.org/"}
    return {"@language": "en", "@vocab": "https://schema.org/"} | own


def croissant(dataset: Dataset, about: dict, terms: Terms, listed: Mapping[str, bytes], shards: bool) -> bytes:
    """The file. about: name, description and citeAs; listed: name and content of the card's own files; shards: whether
    the shards are published too."""
    licences = [f"https://spdx.org/licenses/{one}" for one in terms.licences]
    if not terms.free:  # where the terms are to be read
        licences = sorted({one["home"] for one in terms.sources if one["home"].startswith("http")})
    whole = {
        "@context": _context(),
        "@type": "sc:Dataset",
        "conformsTo": VERSION,
        **about,
        **({"license": licences} if licences else {}),
        "distribution": list(_distribution(dataset, listed, shards)),
        "recordSet": [_records()],
    }
    return json.dumps(whole, indent=1, ensure_ascii=True).encode() + b"\n"


def _distribution(dataset: Dataset, listed: Mapping[str, bytes], shards: bool):
    for name, content in listed.items():
        yield _file(name, len(content), hashlib.sha256(content).hexdigest())
    for name in ("dataset.json", "export.json" if "exported" in dataset.manifest else "build.json"):
        content = dataset.home.read(name)
        yield _file(name, len(content), hashlib.sha256(content).hexdigest())
    for number, shard in enumerate(dataset.manifest["shards"]):
        yield _file(sidecar_name(number), len(dataset.home.read(sidecar_name(number))), shard["sidecar_sha256"])
        if shards:
            yield _file(f"shards/{shard['file']}", shard["bytes"], shard["content_sha256"])


def _file(name: str, size: int, digest: str) -> dict:
    suffix = name[name.rindex(".") :]
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{size} B",
        "encodingFormat": _TYPES.get(suffix, "application/octet-stream"),
        "sha256": digest,
    }


def _records() -> dict:
    return {
        "@type": "cr:RecordSet",
        "@id": "sequences",
        "name": "sequences",
        "description": "A record for every sequence.",
        "key": {"@id": "sequences/id"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"sequences/{name}",
                "name": name,
                "description": meaning,
                "dataType": kind,
                **({"isArray": True, "arrayShape": "-1"} if many else {}),
                "source": {"fileObject": {"@id": "sequences.jsonl"}, "extract": {"column": name}},
            }
            for name, (kind, many, meaning) in COLUMNS.items()
        ],
    }
