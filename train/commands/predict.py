"""`predict`: a fine-tuned run on any scan."""

import click

from train.commands import frame


@click.command(short_help="Predict the class of every point of a file or folder.")
@click.argument("run", type=frame.PATH)
@click.argument("source", type=frame.PATH)
@click.option("--checkpoint", "which", type=click.Choice(["last", "best"]), default="best", show_default=True)
@click.option("--up", default="z", show_default=True, help="What is up in a points file: an axis, a vector, or floor.")
@click.option("--units", default="m", show_default=True, help="Of a points file: m, cm, mm, ... or metres per unit.")
@click.option("--part", help="Part of a folder: train, val or test.  [default: every scan]")
@click.option("--split", type=frame.PATH, help="File with the names of the scans of a folder.")
@frame.views
@frame.window_voxels
@frame.manifest
@click.option("--out", type=frame.PATH, default="predictions", show_default=True, help="Folder to write to.")
@frame.device
@frame.as_json
def predict(run, source, which, views, window_voxels, out, device, as_json, **given) -> None:
    """Predict the class of every point of SOURCE: a points file that gen4d reads, or a folder of scans.

    RUN is a run folder of finetune, or one of its checkpoints. Written to OUT for every scan: predictions/SCAN.npy
    (one class per row of the file, -1 for rows without a point), ply/SCAN.ply (coloured, metres, z up) and
    pictures/SCAN.png. classes.json says what the numbers mean.

    \b
    gen4d-train predict runs/finetune scan.ply --up y --out predictions
    gen4d-train predict runs/finetune scannet/ --checkpoint last
    """
    with frame.one_line_errors():
        from train.run.world import join_world
        from train.tasks.segment.make import seeing_of
        from train.tasks.segment.predict import Source, predict_any
        from train.tasks.segment.trained import load_trained

        say, found = frame.speaker(as_json), []
        with join_world(device) as world:
            frame.check_machine(world)
            trained = load_trained(run, which)
            seeing = seeing_of(trained.config, window_voxels, views)
            mean = f", mean of {views} views" if views > 1 else ""
            say(f"{trained.found.path}: {len(trained.names)} classes, voxels of {seeing.voxel_m:g} m{mean}")
            for item in predict_any(trained, Source(source, **given), out, world.device, seeing):
                say(item.line())
                found.append(item._asdict())
        say(f"written to {out}")
        frame.give(as_json, {"out": str(out), "views": views, "scans": found})
