"""`predict`: a fine-tuned run on any scan."""

import click

from train.commands import frame


@click.command()
@click.argument("run", type=frame.PATH)
@click.argument("source", type=frame.PATH)
@click.option("--checkpoint", "which", type=click.Choice(["last", "best"]), default="best", show_default=True)
@click.option("--up", default="z", show_default=True, help="Of a file: an axis, a vector, or floor.")
@click.option("--units", default="m", show_default=True, help="Of a file: m, cm, mm, ... or metres per unit.")
@click.option("--part", help="Of a folder: train, val or test.  [default: every scan]")
@click.option("--split", type=frame.PATH, help="Of a folder: file with the names of the scans.")
@frame.manifest
@click.option("--out", type=frame.PATH, default="predictions", show_default=True, help="Folder to write to.")
@frame.device
@frame.as_json
def predict(run, source, which, out, device, as_json, **given) -> None:
    """Predict the class of every point of SOURCE: a points file that gen4d reads, or a folder of scans.

    RUN is a run folder of finetune, or one of its checkpoints. OUT gets, for every scan, predictions/SCAN.npy (a class
    a row of the file, -1 where it holds no point), ply/SCAN.ply (coloured, metres, z up) and pictures/SCAN.png, and
    classes.json, which says what the numbers mean.

    \b
    python -m train predict runs/finetune scan.ply --up y --out predictions
    python -m train predict runs/finetune scannet/ --checkpoint last
    """
    with frame.one_line_errors():
        from train.run.world import join_world
        from train.tasks.segment.predict import Source, predict_any
        from train.tasks.segment.trained import load_trained

        say, found = frame.speaker(as_json), []
        with join_world(device) as world:
            frame.check_machine(world)
            trained = load_trained(run, which)
            say(f"{trained.found.path}: {len(trained.names)} classes, voxels of {trained.config.backbone.voxel_m:g} m")
            for item in predict_any(trained, Source(source, **given), out, world.device):
                say(item.line())
                found.append(item._asdict())
        say(f"written to {out}")
        frame.give(as_json, {"out": str(out), "scans": found})
