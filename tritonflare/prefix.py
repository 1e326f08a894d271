"""The option ``--prefix`` of the commands that add columns to files."""

from __future__ import annotations

import click

prefix_option = click.option(
    "--prefix",
    help="Of the added columns' names [default: none, or predicted_ if the input has such a column].",
)
