"""Write the card of a data set that is to be published."""

import click

from gen4d.commands.frame import FOLDER, example


@click.command(
    short_help="Write the card of a data set: README.md, croissant.json, sequences.jsonl.",
    epilog=example("gen4d card data/sequences", "gen4d card data/sequences --out publish/"),
)
@click.argument("dataset")
@click.option("--out", type=FOLDER, help="Another folder, which gets the card and the recipe.  [default: DATASET]")
def card(dataset, out) -> None:
    """Write what a data set, a folder or a URL, needs to be published: README.md with front matter as Hugging Face
    reads it, croissant.json, sequences.jsonl with a row for every sequence, and a picture.

    It says what the terms of the scans and shapes allow. Shards hold their geometry: where that may not be passed on,
    publish what --out gets, the recipe, from which others build the same data (gen4d build --like).
    """
    from gen4d import building
    from gen4d.exports.card import write_card
    from gen4d.shards.dataset import open_dataset

    opened = open_dataset(dataset)
    try:
        folder, terms = write_card(opened, out)
    except OSError as error:
        raise building.unwritable(error, out or dataset) from None
    click.echo(f"{folder}: card of {len(opened)} sequences written")
    if terms.own:
        click.echo("the scans and shapes are your own: give README.md a license before you publish them")
    elif terms.free:
        click.echo(f"shards may be published under the conditions of {' and '.join(terms.licences)}")
    elif not terms.known:
        click.echo("do not publish the shards: the data set does not say what it was made from")
    else:
        names = " and ".join(one["title"] for one in terms.sources if not one["licence"] and one["terms"] != "yours")
        beside = opened.local and folder == opened.folder
        if "exported" in opened.manifest:
            recipe = "gen4d card --out writes what they need, of the data set that was exported"
        else:
            recipe = "gen4d card --out writes what they need" if beside else f"{folder} is all that they need"
        click.echo(f"do not publish the shards: the terms of {names} do not allow it")
        click.echo(f"others build the same data from their own copies: {recipe}")
