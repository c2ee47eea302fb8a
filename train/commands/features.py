"""`features`: per-point features of a scan, and their picture."""

import click

from train.commands import frame


@click.command(short_help="Write features of a scan, and a picture of them.")
@click.argument("weights", type=frame.PATH)
@click.option("--scan", type=frame.PATH, help="A points file that gen4d reads (.ply, .pcd).")
@click.option("--data", help="A data set; --name chooses one of its scans.")
@click.option("--name", help="Name of the scan in --data.  [default: the first]")
@click.option("--up", default="z", show_default=True, help="What is up in --scan: an axis, a vector, or floor.")
@click.option("--units", default="m", show_default=True, help="Units of --scan: m, cm, mm, ... or metres per unit.")
@click.option(
    "--out", type=frame.PATH, default="features.npy", show_default=True, help="A .npy file; a .png goes beside it."
)
@frame.device
@frame.as_json
def features(weights, scan, data, name, up, units, out, device, as_json) -> None:
    """Write per-point features of a scan as .npy, with a picture of their principal components.

    WEIGHTS is a run folder, a checkpoint folder, or a file of export-weights. One row per point of the file, in its
    order; rows of points that are not finite are NaN.

    \b
    gen4d-train features runs/pretrain --scan scene0000_00_vh_clean_2.ply --out features.npy
    """
    with frame.one_line_errors():
        from train.nets.weights import load_backbone
        from train.run.world import join_world
        from train.tasks import features as task

        if (scan is None) == (data is None):
            raise click.UsageError("give either --scan or --data")
        with join_world(device) as world:
            point, row, rows = task.read_scan(scan, up, units) if scan else task.read_stored_scan(data, name)
            found = task.point_features(load_backbone(weights), point, world.device)
        shape = task.write_features(out, point, found, row, rows)
    picture = out.with_suffix(".png")
    frame.speaker(as_json)(f"{out}: {shape[0]} points x {shape[1]} features; picture in {picture}")
    frame.give(as_json, {"features": str(out), "shape": shape, "picture": str(picture)})
