"""`compare`: runs side by side."""

import click

from train.commands import frame


@click.command(short_help="Compare runs: settings, results, curves.")
@click.argument("runs", type=frame.PATH, nargs=-1, required=True)
@click.option("--out", type=frame.PATH, default="compare.png", show_default=True, help="Picture of the curves.")
@frame.as_json
def compare(runs, out, as_json) -> None:
    """Compare RUNS: the settings in which they differ, what they reached, and a page of their curves.

    \b
    gen4d-train compare runs/pretrain runs/moving-3d --out compare.png
    """
    with frame.one_line_errors():
        from train.study import compare as study

        found = study.read_runs(runs)
        study.draw(found, out)
        say = frame.speaker(as_json)
        say("\n".join([*study.table(found), "", "figures: the last value (mean of the last tenth)", f"curves: {out}"]))
        reached = {run.name: {name: float(values[-1]) for name, (_, values) in run.curves.items()} for run in found}
        frame.give(as_json, {"differences": study.differences(found), "last": reached, "picture": str(out)})
