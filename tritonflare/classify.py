"""``tritonflare classify``: files of texts in, the same files with labels and scores out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from tritonflare.files import FileOptions, Task, file_options, run_files
from tritonflare.prefix import prefix_option

if TYPE_CHECKING:
    from bulk.client.http import ApiClient
    from bulk.client.models import ModelFacts
    from bulk.tables import Table
    from bulk.work import Work


@click.command()
@file_options
@click.option("--column", help="The column with the texts, by name or number [default: guessed, and said].")
@click.option("--all-scores", is_flag=True, help="Add a column with the score of each label.")
@prefix_option
def classify(files: FileOptions, column: str | None, all_scores: bool, prefix: str | None) -> None:
    """Classify the texts of files: CSV, TSV, JSON Lines, Parquet, plain lines, or - for standard input.

    Each output has all columns of its input, and label, score, truncated and error behind them. It is
    written beside the input, as NAME.classified.ENDING. Without --url, a Triton and a gateway are started
    for this command alone.

    An interrupted run continues when the same command is given again: the journal beside the output has
    the answers so far.

    \b
    Exit codes: 0 every row has a label; 1 some have an error instead; 2 nothing can be done this way;
    3 the server was away for too long, run it again to continue; 130 interrupted, likewise.
    """  # noqa: D301 (click needs the control character)
    from bulk.columns import TEXT_NAMES, find_column, free_prefix, guess_column

    def columns(table: Table, where: str) -> list[int]:
        if column is not None:
            return [find_column(table, column, where)]
        return [guess_column(table, TEXT_NAMES, where)]

    async def work(client: ApiClient, model: ModelFacts, table: Table) -> Work:
        from bulk.classification import NAMES, ClassifyRows
        from bulk.client.classify import Classifier

        classifier = Classifier(client, model.name, model.version)
        if not model.labels:
            model = replace(model, labels=await classifier.labels())
        names = [*NAMES, *(f"score_{label}" for label in model.labels if all_scores)]
        return ClassifyRows(classifier, model, free_prefix(table, names, prefix), all_scores)

    run_files(Task("classified", False, columns, work), files)
