"""`python -m gen4d`, the same as `gen4d`."""

from gen4d.cli import main

main()
