"""`export-weights`: a run's backbone as one file."""

import click

from train.commands import frame


@click.command("export-weights", short_help="Write a backbone for use here or elsewhere.")
@click.argument("run", type=frame.PATH)
@click.option("--out", type=frame.PATH, default="backbone.safetensors", show_default=True, help="File to write.")
@click.option("--module", is_flag=True, help="Write the net beside it, as a .py that needs torch and spconv alone.")
@frame.as_json
def export_weights(run, out, module, as_json) -> None:
    """Write a run's backbone as one safetensors file, for fine-tuning here or elsewhere.

    RUN is a run folder, a checkpoint folder, or a .pth file of PointContrast or Contrastive Scene Contexts. The file's
    header says how tensors lie, of sparse U-Nets and of nets on points. With --module a Python file beside it holds the
    U-Net for spconv users elsewhere, and as a backbone of Pointcept; its head says how to use it.

    \b
    gen4d-train export-weights runs/pretrain --out backbone.safetensors --module
    gen4d-train export-weights pointcontrast.pth --out pointcontrast.safetensors
    """
    with frame.one_line_errors():
        from train.nets import weights

        about = weights.export_weights(run, out, module)
    say = frame.speaker(as_json)
    steps = "weights" if about["step"] is None else f"after {about['step']} steps"
    say(f"{out}: backbone {about['net']}, {steps} of {about['method']}")
    say(f"{out.with_suffix('.py')}: the net, see its head" if module else about["layout"])
    frame.give(as_json, {"file": str(out)} | about)
