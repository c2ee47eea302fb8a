"""Write the page of a whole data set."""

import pathlib
import sys
import time

import click

from gen4d.commands.frame import FOLDER, SECONDS_A_LINE, example


@click.command(
    short_help="Write a page of a whole data set: totals, rules, scans, sources.",
    epilog=example("gen4d report data/sequences", "gen4d report data/sequences --views --out web/index.html"),
)
@click.argument("dataset")
@click.option(
    "--out", default=pathlib.Path("report.html"), type=FOLDER, show_default=True, help="File to write, an .html."
)
@click.option("--views", is_flag=True, help="Also write a page of each scan, and link to it.")
@click.option("--quick", is_flag=True, help="Check names and sizes of files alone, not their content.")
def report(dataset, out, views, quick) -> None:
    """Write one page about a data set, which is a folder or a URL: whether it is intact, whether its rules are kept,
    measured again from what is stored, its scans, classes, rejections and sources.

    The exit code is 1 if a file is damaged or a rule is broken.
    """
    from gen4d import files
    from gen4d.report.overview import write_report
    from gen4d.shards.dataset import open_dataset

    if out.suffix.lower() != ".html" or out.is_dir():
        raise click.BadParameter(f"{out}: give the name of a file that ends in .html", param_hint="--out")
    files.make_folder(out.parent)  # what cannot be written is said before all is measured
    last = time.monotonic()

    def progress(done: int, of: int) -> None:
        nonlocal last
        if time.monotonic() - last > SECONDS_A_LINE:
            last = time.monotonic()
            click.echo(f"{done}/{of} scans", err=True)

    written = write_report(open_dataset(dataset), out, quick, views, progress)
    for line in written.lines:
        click.echo(line)
    sys.exit(not written.sound)
