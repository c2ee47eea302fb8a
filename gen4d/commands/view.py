"""Show a scan or a sequence."""

import pathlib

import click

from gen4d.commands.frame import FOLDER, example, find_sequence


@click.command(
    short_help="Show a scan or a sequence: a page, a picture, a moving picture.",
    epilog=example(
        "gen4d view data/sequences scene0000_00 --out scene.html",
        "gen4d view data/sequences scene0000_00/003 --out sequence.png",
    ),
)
@click.argument("dataset")
@click.argument("what", default="")
@click.option(
    "--out",
    default=pathlib.Path("scan.html"),
    type=FOLDER,
    show_default=True,
    help="File to write: .html, .png or .gif.",
)
def view(dataset, what, out) -> None:
    """Show WHAT, a scan or a sequence (id or number) of a data set, which is a folder or a URL.

    An .html holds a scan with all its sequences and opens in any browser, without a network. A .png or .gif shows one
    sequence, of a scan the one in which a shape moves farthest.
    """
    from gen4d.report import draw
    from gen4d.shards.dataset import open_dataset

    if out.suffix.lower() not in draw.WRITERS:
        raise click.BadParameter(f"{out}: give a name that ends in .html, .png or .gif", param_hint="--out")
    opened = open_dataset(dataset)
    numbers = opened.numbers(opened.scan_names[opened.scan_of(0)]) if len(opened) else []
    if what in opened.scan_names:
        numbers = opened.numbers(what)
    elif what:
        numbers = [find_sequence(opened, what, "WHAT")]
    click.echo(f"{out}: {draw.write(opened, numbers, out)}")
