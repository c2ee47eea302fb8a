"""Write a data set for other readers."""

import time

import click

from gen4d.commands.frame import FOLDER, example
from gen4d.report import summary as report


@click.command(
    short_help="Write a data set as HDF5.",
    epilog=example("gen4d export data/sequences --to hdf5 --out data/hdf5 --pairs"),
)
@click.argument("dataset")
@click.option("--to", "kind", type=click.Choice(["hdf5"]), default="hdf5", show_default=True, help="Format.")
@click.option("--out", required=True, type=FOLDER, help="Folder to write.")
@click.option("--pairs", is_flag=True, help="Add explicit pair lists if the data set has none.")
def export(dataset, kind, out, pairs) -> None:
    """Write a data set, a folder or a URL, as HDF5, for readers that do not have Zarr."""
    from gen4d import building
    from gen4d.exports.hdf5 import export_hdf5
    from gen4d.shards.dataset import open_dataset

    opened = open_dataset(dataset)
    started = time.monotonic()
    try:
        shards = sum(1 for _ in export_hdf5(opened, out, pairs))
    except OSError as error:
        raise building.unwritable(error, out) from None
    seconds = report.format_seconds(time.monotonic() - started)
    click.echo(f"{out}: {report.counted(shards, 'shard')}, {len(opened)} sequences in {kind}, in {seconds}")
