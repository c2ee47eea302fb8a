"""`evaluate`: a fine-tuned run on scans."""

import json

import click

from train.commands import frame


@click.command(short_help="Evaluate a fine-tuned run, and write predictions.")
@click.argument("run", type=frame.PATH)
@click.option("--data", type=frame.PATH, required=True, help="Folder of scans, as for finetune.")
@frame.manifest
@click.option("--part", default="val", show_default=True, help="Part of the data set: val, train or test.")
@click.option("--split", type=frame.PATH, help="File with the names of the scans, in place of --part.")
@click.option("--checkpoint", "which", type=click.Choice(["both", "last", "best"]), default="both", show_default=True)
@click.option(
    "--write",
    "formats",
    multiple=True,
    type=click.Choice(["npy", "txt", "ply"]),
    help="Predictions, too.",
)
@click.option("--no-labels", is_flag=True, help="The scans have no labels: write predictions only.")
@frame.views
@frame.window_voxels
@click.option(
    "--out", type=frame.PATH, help="Folder to write to.  [default: RUN/evaluation, with --tta 4 RUN/evaluation-tta4]"
)
@frame.device
@frame.as_json
def evaluate(run, which, out, device, no_labels, as_json, **given) -> None:
    """Evaluate a fine-tuned run: mIoU and mAcc on all points and on 2 cm voxels, confusion, predictions; of blocks
    on all points and on sampled ones; of instances AP by ScanNet's rules, of boxes AP at IoU 0.25 and 0.5.

    RUN is a run folder of finetune, or one of its checkpoints. --write npy: one class per row of the points file;
    txt: ids as ScanNet's benchmark takes them; ply: points coloured by class.

    \b
    gen4d-train evaluate runs/finetune --data scannet --write npy
    gen4d-train evaluate runs/finetune --data scannet --part test --no-labels --write txt --checkpoint last
    """
    with frame.one_line_errors():
        from train.run.machine import machine
        from train.run.world import join_world
        from train.tasks import trained
        from train.tasks.segment.trained import Wanted, evaluate_run

        wanted = Wanted(labels=not no_labels, **given)
        with join_world(device) as world:
            whole = trained.task_of(run, which) not in trained.JUDGED
            evaluate_of = evaluate_run if whole else trained.evaluate_run
            frame.check_machine(world)
            place = out or run / ("evaluation" if wanted.views == 1 else f"evaluation-tta{wanted.views}")
            for line in evaluate_of(run, which, wanted, place, world.device, machine(world.device)):
                click.echo(line, err=as_json)
            results = place / "results.json"  # not there where the scans have no labels
            frame.give(as_json, json.loads(results.read_bytes()) if wanted.labels else {"written": str(place)})
