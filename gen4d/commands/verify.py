"""Check a data set."""

import sys

import click

from gen4d.commands.frame import example
from gen4d.report import summary as report


@click.command(
    short_help="Check that a data set is intact and complete.", epilog=example("gen4d verify data/sequences")
)
@click.argument("dataset")
@click.option("--quick", is_flag=True, help="Check only names, sizes, and the hashes of the .json files.")
def verify(dataset, quick) -> None:
    """Check that a data set, a folder or a URL, is intact and complete: every bit of every file."""
    from gen4d.shards import verify as checks
    from gen4d.shards.dataset import open_dataset

    opened = open_dataset(dataset)
    problems = [line for line in checks.verify(opened, quick) if line]
    for line in problems:
        click.echo(line, err=True)
    done = "names and sizes" if quick else "every file, chunk and table"
    totals = opened.manifest["totals"]
    if not problems:
        shards = report.counted(len(opened.manifest["shards"]), "shard")
        click.echo(f"{dataset}: {shards}, {totals['sequences']} sequences: {done} intact")
    sys.exit(bool(problems))
