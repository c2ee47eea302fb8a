"""Check raw folders."""

import json
import pathlib
import sys
import time

import click

from gen4d.commands.frame import FOLDER, SECONDS_A_LINE, class_names, example, own_data
from gen4d.config import BUILT


class _Reading:
    """Says how many files are read, rarely enough for a log file, on standard error."""

    def __init__(self):
        self.printed = time.monotonic()

    def __call__(self, what: str, done: int, of: int) -> None:
        if time.monotonic() - self.printed > SECONDS_A_LINE:
            self.printed = time.monotonic()
            click.echo(f"{done}/{of} {what} read", err=True)


@click.command(
    "doctor",
    short_help="Check raw folders before a long build.",
    epilog=example(
        "gen4d doctor --scans scannet/ --shapes ModelNet40/",
        "gen4d doctor --kind frames --scans my-recordings/",
    ),
)
@click.option("--kind", default="moving", show_default=True, type=click.Choice(BUILT), help="As for build.")
@click.option("--scans", type=FOLDER, help="Folder of scans.")
@click.option("--shapes", type=FOLDER, help="Folder of shapes.")
@click.option("--split", type=FOLDER, help="File with the names of the scans to use.")
@click.option("--up", help="Up axis of the scans, as for build.")
@click.option("--units", help="Unit of the scans, as for build.")
@click.option("--classes", help="Classes of shapes, as for build: others are not read.")
@click.option("--shape-units", help="Unit of shapes that have one, as for build.")
@click.option("--shape-up", default="auto", show_default=True, help="Up axis of the shapes, as for build.")
@own_data
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Number of processes.")
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON.")
def doctor_command(kind, scans, shapes, split, up, units, classes, shape_units, shape_up, workers, as_json) -> None:
    """Read raw folders before a long build, and report everything that is wrong with them at once.

    Of frames and sweeps, also whether neighbouring ones agree, and if not, which other convention of poses would fit.
    """
    if scans is None and shapes is None:
        raise click.UsageError("give --scans, --shapes, or both")
    _refuse_idle(kind, scans, shapes)
    from gen4d import sources
    from gen4d.building.moving import find_orientation
    from gen4d.report import doctor

    findings = []
    if kind in ("frames", "sweeps"):
        findings += _examine_recordings(kind, scans, split, shapes)
    elif scans is not None:
        given = up is not None or units is not None
        orientation = find_orientation(sources.find_scans(scans, split).entry, up, units) if given else None
        findings += doctor.examine_scans(scans, split, orientation, progress=_Reading(), workers=workers)
    if shapes is not None and kind == "views":
        findings += _examine_views(shapes, split, classes, shape_up, shape_units)
    if shapes is not None and kind == "moving":
        metres = sources.parse_units(shape_units, "--shape-units") if shape_units else 0.0
        reading = {"progress": _Reading(), "workers": workers}
        findings += doctor.examine_shapes(
            shapes, class_names(classes), None, shape_up, metres_per_unit=metres, **reading
        )
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=1))
    else:
        for finding in findings:
            click.echo(f"{finding.level}: {finding.path}: {finding.message}")
    sys.exit(any(finding.level == "error" for finding in findings))


def _refuse_idle(kind: str, scans: pathlib.Path | None, shapes: pathlib.Path | None) -> None:
    """Options that would change nothing of what is read."""
    posed = kind in ("frames", "sweeps")
    idle = ["up", "units"] if posed or scans is None else []
    idle += ["classes", "shape_up", "shape_units"] if posed or shapes is None else []
    context = click.get_current_context()
    for name in idle:
        if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            of = "sequences of kind " + kind if posed else "what is given"
            raise click.UsageError(f"--{name.replace('_', '-')}: says nothing of {of}: leave it out")


def _examine_recordings(kind: str, scans: pathlib.Path | None, split: pathlib.Path | None, shapes: object):
    from gen4d.building import kind_of
    from gen4d.report.recordings import examine_recordings

    if scans is None or shapes is not None:
        raise click.UsageError(f"sequences of kind {kind} are made from --scans alone")
    return examine_recordings(scans, kind, split, kind_of(kind).CONFIGS[kind](), _Reading())


def _examine_views(shapes: pathlib.Path, split, classes, shape_up: str, shape_units: str | None):
    from gen4d import sources
    from gen4d.config import ViewsConfig
    from gen4d.report.shapes import examine_shape_views

    metres = sources.parse_units(shape_units, "--shape-units") if shape_units else 0.0
    wanted = class_names(classes) if classes else ()
    return examine_shape_views(
        shapes, ViewsConfig(classes=wanted, shape_up=shape_up, shape_metres=metres), split, _Reading()
    )
