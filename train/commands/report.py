"""`report`: a run as a page."""

import click

from train.commands import frame


@click.command(short_help="Write a page of a run: scores, curves, pictures, settings.")
@click.argument("run", type=frame.PATH)
@click.option("--out", type=frame.PATH, default="run.html", show_default=True, help="Page to write, an .html.")
@frame.as_json
def report(run, out, as_json) -> None:
    """Write a page of RUN, a run folder of pretrain, finetune or classify, finished or not: scores, whether the terms
    are learned, curves, pictures, settings that differ from the nearest preset, versions, and how to go on.

    One file, which opens in any browser, without a network.

    \b
    gen4d-train report runs/pretrain --out run.html
    """
    if out.suffix.lower() != ".html" or out.is_dir():
        raise click.BadParameter(f"{out}: give the name of a file that ends in .html", param_hint="--out")
    with frame.one_line_errors():
        from train.study.page import write_page

        shown = write_page(run, out)
        frame.speaker(as_json)(f"{out}: {shown}")
        frame.give(as_json, {"page": str(out), "shows": shown})
