"""``tritonflare rerank``: files of queries and documents in, the same files with scores out."""

from __future__ import annotations

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
@click.option("--query-column", help="The column with the queries [default: guessed, and said].")
@click.option("--document-column", help="The column with the documents [default: guessed, and said].")
@prefix_option
def rerank(
    files: FileOptions, query_column: str | None, document_column: str | None, prefix: str | None
) -> None:
    """Score the documents of files by their queries: each row has one of each.

    Each output has all columns of its input, and score, truncated and error behind them, in the order of
    the input. It is written beside the input, as NAME.reranked.ENDING. Rows of one query are sent together
    where they follow each other. Interruptions and exit codes are those of `tritonflare classify`.
    """
    from bulk.columns import DOCUMENT_NAMES, QUERY_NAMES, find_column, free_prefix, guess_column
    from bulk.errors import TableError

    def columns(table: Table, where: str) -> list[int]:
        places = [
            find_column(table, given, where) if given is not None else guess_column(table, names, where)
            for given, names in ((query_column, QUERY_NAMES), (document_column, DOCUMENT_NAMES))
        ]
        if places[0] == places[1]:
            name = table.columns[places[0]]
            raise TableError(
                f"{where}: {name} would be query and document; name them with --query-column and "
                "--document-column"
            )
        return places

    async def work(client: ApiClient, model: ModelFacts, table: Table) -> Work:
        from bulk.client.rank import Ranker
        from bulk.ranking import NAMES, RankRows

        return RankRows(Ranker(client, model.name, model.version), model, free_prefix(table, NAMES, prefix))

    run_files(Task("reranked", True, columns, work), files)
