"""`study`: ways of pre-training, compared."""

import click

from train.commands import frame


@click.command(short_help="Compare ways of pre-training on built-in rooms.")
@click.option("--size", default="small", show_default=True, help="small: an hour and a half of two CPU cores; or full.")
@click.option("--out", type=frame.PATH, default="runs/study", show_default=True, help="Folder of the study.")
@frame.assignments
@click.option("--workers", default=2, show_default=True, type=click.IntRange(0), help="Worker processes; 0: none.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@frame.as_json
def study(size, out, assignments, workers, device, as_json) -> None:
    """Compare ways of pre-training with training from scratch, on the built-in rooms. Run it again to continue.

    \b
    gen4d-train study --size small --workers 2
    """
    with frame.one_line_errors():
        from train.config import resolve
        from train.run.machine import machine
        from train.run.world import choose_device
        from train.study import report
        from train.study.plan import STUDIES
        from train.study.run import run_study

        plan, place = resolve(size, assignments, STUDIES), choose_device(device)
        say = frame.speaker(as_json)
        lines = run_study(plan, out, workers, device, say)
        say("\n".join(report.write_report(out, lines, machine(place))))
        frame.give(as_json, lines)
