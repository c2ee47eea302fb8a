"""`doctor`: whether this machine can train."""

import click


@click.command()
def doctor() -> None:
    """Check this machine for training: packages, GPUs, and whether sparse convolutions compute right numbers.

    \b
    python -m train doctor
    """
    from train.doctor import examine

    findings = examine()
    for finding in findings:
        click.echo(f"{finding.level:8} {finding.text}")
    if any(finding.level == "bad" for finding in findings):
        raise SystemExit(1)
