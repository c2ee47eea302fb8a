"""Write a data set, or some of its sequences, in formats of others."""

import pathlib
import re
import time

import click

from gen4d.commands.frame import FOLDER, SECONDS_A_LINE, example, find_sequence
from gen4d.report import summary as report

_KINDS = ("hdf5", "pointcept", "ply", "npz", "glb", "webdataset")
_NOTES = {
    "pointcept": "sequences have no colours or normals: read them with Pointcept's DefaultDataset, coordinates alone",
    "glb": "glTF cannot say which points a frame keeps: every file shows all points of its clouds",
}
_UNPAIRED = "points of different frames have no identity in common here: npz and webdataset hold the pairs of rows"


@click.command(
    short_help="Write a data set, or some sequences, for other programs.",
    epilog=example(
        "gen4d export data/sequences --to ply --out ply --sequences scene0000_00",
        "gen4d export data/sequences --to hdf5 --out data/hdf5 --pairs",
    ),
)
@click.argument("dataset")
@click.option("--to", "kind", type=click.Choice(_KINDS), default="hdf5", show_default=True, help="Format.")
@click.option("--out", required=True, type=FOLDER, help="Folder to write.")
@click.option(
    "--sequences",
    "chosen",
    multiple=True,
    metavar="WHICH",
    help="Write only these: a scan, an id, a number or a range like 0-99. May be given several times.",
)
@click.option("--limit", type=click.IntRange(1), help="Write only the first N of them.")
@click.option("--dry-run", is_flag=True, help="Say what it takes, and write nothing.")
@click.option("--pairs", is_flag=True, help="hdf5: add explicit pair lists if the data set has none.")
def export(dataset, kind, out, chosen, limit, dry_run, pairs) -> None:
    """Write a data set, a folder or a URL, for other programs.

    \b
    hdf5        the whole data set, for readers that do not have Zarr
    pointcept   a folder of .npy per frame, as Pointcept's DefaultDataset reads
    ply         a .ply per frame, for MeshLab, CloudCompare, Blender, Open3D
    npz         a .npz per sequence: frames and pairs of rows
    glb         an animated .glb per sequence, for slides, web pages, Blender
    webdataset  .tar files, for webdataset and Hugging Face's datasets

    All but hdf5 and glb write every frame out, which is about 100 times as large as the data set: the size is said
    first. The same command continues where an interrupted export stopped.
    """
    from gen4d import building
    from gen4d.shards.dataset import open_dataset

    if kind == "hdf5" and (chosen or limit or dry_run):
        raise click.UsageError("--sequences, --limit and --dry-run: hdf5 is written shard by shard, leave them out")
    if kind != "hdf5" and pairs:
        raise click.UsageError("--pairs: for --to hdf5 alone; npz and webdataset always hold pairs")
    opened = open_dataset(dataset)
    try:
        if kind == "hdf5":
            _export_hdf5(opened, out, pairs)
        else:
            _export(opened, kind, out, _numbers(opened, chosen)[:limit], dry_run)
    except OSError as error:
        raise building.unwritable(error, out) from None


def _numbers(opened, chosen: tuple[str, ...]) -> tuple[int, ...]:
    """Numbers of the chosen sequences, all if there is no choice, in the order of the data set."""
    if not chosen:
        return tuple(range(len(opened)))
    numbers: set[int] = set()
    for which in chosen:
        span = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", which)
        if which in opened.scan_names:
            numbers.update(opened.numbers(which))
        elif span:
            first, last = (find_sequence(opened, text, "--sequences") for text in span.groups())
            if first > last:
                raise click.BadParameter(f"{which!r} falls: write {last}-{first}", param_hint="--sequences")
            numbers.update(range(first, last + 1))
        else:
            numbers.add(find_sequence(opened, which, "--sequences"))
    return tuple(sorted(numbers))


def _export_hdf5(opened, out: pathlib.Path, pairs: bool) -> None:
    from gen4d.exports.hdf5 import export_hdf5

    started = time.monotonic()
    shards = sum(1 for _ in export_hdf5(opened, out, pairs))
    seconds = report.format_seconds(time.monotonic() - started)
    click.echo(f"{out}: {report.counted(shards, 'shard')}, {len(opened)} sequences in hdf5, in {seconds}")


def _export(opened, kind: str, out: pathlib.Path, numbers: tuple[int, ...], dry_run: bool) -> None:
    from gen4d import files
    from gen4d.exports.sequences import export_sequences, plan_export

    plan = plan_export(opened, numbers, kind, out)
    if kind in _NOTES:
        click.echo(f"note: {_NOTES[kind]}", err=True)
    if kind in ("pointcept", "ply") and opened[numbers[0]].kind in ("frames", "sweeps"):
        click.echo(f"note: {_UNPAIRED}", err=True)
    if plan.left < len(numbers):
        click.echo(f"{len(numbers) - plan.left} of {report.counted(len(numbers), 'sequence')} are there already")
    size, free = report.format_bytes(plan.bytes), report.format_bytes(files.free_bytes(out))
    cost = f"about {size}, {report.format_seconds(plan.seconds)} and what the disk takes, judged by the first"
    click.echo(f"{report.counted(plan.left, 'sequence')} to write: {cost}; {free} are free")
    if dry_run:
        return
    started = printed = time.monotonic()
    for done in export_sequences(opened, plan, out):
        now = time.monotonic()
        made = done - (len(numbers) - plan.left)
        if now - printed >= SECONDS_A_LINE and made > 0 and done < len(numbers):
            printed = now
            rate = made / (now - started)
            left = report.format_seconds((len(numbers) - done) / rate)
            click.echo(f"{done}/{len(numbers)} sequences, {rate:.1f} sequences/s, {left} left")
    seconds = report.format_seconds(time.monotonic() - started)
    click.echo(f"{out}: {report.counted(len(numbers), 'sequence')} in {kind}, in {seconds}")
