"""`export-weights`: a run's backbone as one file."""

import click

from train.commands import frame


@click.command("export-weights")
@click.argument("run", type=frame.PATH)
@click.option("--out", type=frame.PATH, default="backbone.safetensors", show_default=True, help="File to write.")
def export_weights(run, out) -> None:
    """Write a run's 3D backbone as one safetensors file, for fine-tuning here or elsewhere.

    RUN is a run folder or a checkpoint folder. The file's header says how tensors lie, for spconv users elsewhere.

    \b
    python -m train export-weights runs/pretrain --out backbone.safetensors
    """
    with frame.one_line_errors():
        from train.nets import weights

        about = weights.export_weights(run, out)
    click.echo(f"{out}: 3D backbone {about['net']} after {about['step']} steps of {about['method']}")
    click.echo(about["layout"])
