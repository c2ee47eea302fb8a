"""`study`: ways of pre-training, compared."""

import os
import pathlib

import click

from train.commands import frame


def _part(context, parameter, text):
    if text is None:
        return 1, 1
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise click.BadParameter(f"{text}: I/N with I from 1 to N")
    return int(number), int(of)


@click.command(short_help="Compare ways of pre-training, on built-in rooms or your own.")
@click.option(
    "--size",
    type=click.Choice(["small", "full", "own"]),
    help="small: three hours of two CPU cores; full: a day of a GPU at most; own.  [default: small or own]",
)
@click.option("--scans", type=frame.PATH, help="Folder of your scans to pre-train on, instead of built-in rooms.")
@click.option("--labels", type=frame.PATH, help="Folder of your labelled scans.")
@click.option("--shapes", type=frame.PATH, help="Folder of your shapes to move.  [default: built-in furniture]")
@frame.manifest_option()
@click.option("--out", type=frame.PATH, default="runs/study", show_default=True, help="Folder of the study.")
@frame.assignments
@click.option("--workers", default=2, show_default=True, type=click.IntRange(0), help="Worker processes; 0: none.")
@click.option("--part", callback=_part, metavar="I/N", help="This call's share of the work, in a folder of several.")
@frame.device
@click.option("--dry-run", is_flag=True, help="Print the plan and, from a few measured steps, what it costs, and stop.")
@frame.as_json
def study(size, out, assignments, workers, part, device, dry_run, as_json, **given) -> None:
    """Compare ways of pre-training with training from scratch. Run it again to continue.

    \b
    gen4d-train study --size small --workers 2
    gen4d-train study --scans mine/ --labels mine/ --out runs/mine
    """
    with frame.one_line_errors():
        from train.config import resolve
        from train.run.loop import Stopped
        from train.run.machine import machine
        from train.run.world import World, choose_device
        from train.study import report
        from train.study.plan import STUDIES
        from train.study.rooms import Given, StudyError
        from train.study.run import Machine, Part, run_study

        own = Given(**given)
        if (own.scans is None) != (own.labels is None):
            raise StudyError("--scans and --labels: give both, of your own data, or neither for built-in rooms")
        plan = resolve(size or ("own" if own.scans else "small"), assignments, STUDIES)
        place, say = choose_device(device), frame.speaker(as_json)
        frame.check_machine(World(0, 1, place))
        if place.type == "cuda" and workers > 1 and not _has_mps():
            say("processes that share a GPU take turns: under NVIDIA's MPS they make twice the steps (docs/study.md)")
        if dry_run:
            frame.give(as_json, _dry_run(plan, own, workers, place.type, say))
            return
        try:
            lines = run_study(plan, own, out, Machine(workers, place.type, Part(*part)), say)
        except Stopped as stopped:
            say(str(stopped))
            raise SystemExit(128 + stopped.number) from None
        if part == (1, 1):
            say("\n".join(report.write_report(out, plan, lines, machine(place))))
        frame.give(as_json, lines)


def _dry_run(plan, own, workers, device, say) -> dict:
    """Says the plan, measures steps on a few rooms in a folder of its own, and says what the plan costs."""
    import tempfile

    from train.study.arms import pretrained_as
    from train.study.cells import measure_costs
    from train.study.plan import seconds_of_stages
    from train.study.rooms import make_few

    for line in frame.describe_settings(plan):
        say(line)
    say(f"tests: {len(plan.planned)}, for which Holm corrects")
    with tempfile.TemporaryDirectory() as folder:
        start = _cpu_seconds()
        few = make_few(plan, own, pathlib.Path(folder), workers, say)
        made = (_cpu_seconds() - start) / few.share
        costs = measure_costs(plan, few.rooms, device, sorted({*map(pretrained_as, plan.probed)} - {""}))
    costs = costs._replace(judged=few.judged)
    stages = {"rooms": made} | seconds_of_stages(plan, costs)
    for name, seconds in (costs.pretrain | costs.step).items():
        say(f"a step of {name}: {seconds:.3f} s")
    for stage, seconds in stages.items():
        say(f"{stage}: {seconds / 3600:.2f} hours of one process")
    processes = max(workers, 1)
    at_once = processes if device == "cpu" else 1  # steps were measured by one process that had the GPU for itself
    total = made / processes + (sum(stages.values()) - made) / at_once
    how = (
        f"{processes} processes with an idle core each" if device == "cpu" else "a GPU that one process has for itself"
    )
    say(f"in all at most {total / 3600:.2f} hours of {how}")
    return {"costs": costs._asdict(), "seconds": stages, "total_seconds": total}


def _has_mps() -> bool:
    """Whether NVIDIA's Multi-Process Service was started, in the folder that CUDA looks for it."""
    return pathlib.Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"), "control").exists()


def _cpu_seconds() -> float:
    """Of this process and its workers that have ended."""
    return sum(os.times()[:4])
