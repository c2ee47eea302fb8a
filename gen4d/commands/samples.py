"""Write built-in scans and shapes."""

import click

from gen4d.commands.frame import FOLDER, example


@click.command(
    short_help="Write built-in scans and shapes; nothing is downloaded.",
    epilog=example("gen4d samples data/samples --rooms 50 --workers 2", "gen4d samples data/samples --frames"),
)
@click.argument("folder", type=FOLDER)
@click.option(
    "--rooms",
    default=12,
    show_default=True,
    type=click.IntRange(1),
    help="Number of rooms; each is scanned one to three times.",
)
@click.option("--shapes", default=6, show_default=True, type=click.IntRange(1), help="Shapes per class.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of all random draws.")
@click.option("--level", is_flag=True, help="Write level scans instead of tilted ones, which real ones are.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Number of processes.")
@click.option("--frames", is_flag=True, help="Also write the depth images and poses that the scans were made from.")
def samples(folder, rooms, shapes, seed, level, workers, frames) -> None:
    """Write built-in scans and shapes, so that everything can be tried without a download."""
    from gen4d import building
    from gen4d.report.summary import counted
    from gen4d.samples import write_samples

    try:
        written = write_samples(folder, rooms, shapes, seed, _say, not level, frames, workers)
    except OSError as error:
        raise building.unwritable(error, folder) from None
    there = "" if written.written else ", there already"
    images = ", their depth images in frames/" if frames else ""
    scans, shapes = counted(written.scans, "scan"), counted(written.shapes, "shape")
    click.echo(f"{folder}: {scans} in scans/{images}, {shapes} in shapes/{there}")


def _say(done: int, of: int, what: str) -> None:
    click.echo(f"{done}/{of} {what}")
