"""The journals of the commands that work on files: what they belong to, and how long they stay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bulk.client.models import ModelFacts
    from bulk.files import OutputFiles
    from bulk.journal import Journal
    from bulk.run import Summary


def identity_of_model(model: ModelFacts, server: str) -> dict[str, Any]:
    """Return what decides the answers: answers of others must not come into the same output.

    Args:
        model: with its version.
        server: the address of a running one; a server of the command's own has another port each time.
    """
    return {
        "server": server,
        "model": model.name,
        "model version": model.version,
        "labels": list(model.labels),
    }


def open_journal(output: OutputFiles, path: Path, identity: Mapping[str, Any], overwrite: bool) -> Journal:
    """Open the journal beside an output, for ``path`` as its input.

    Args:
        output: what it is beside.
        path: its content is part of the identity.
        identity: what else decides the answers.
        overwrite: whether a complete output of another run may be replaced, and its journal with it.

    Raises:
        JournalError: see `Journal`.
        TableError: the input cannot be read.
    """
    from bulk.journal import Journal
    from bulk.tables.source import fingerprint

    return Journal(output.journal, {"input": fingerprint(path), **identity}, overwrite)


def is_complete(journal: Journal, output: OutputFiles, form: str) -> bool:
    """Whether an earlier run finished this output, in this form, and left nothing to ask again."""
    finished = journal.finished
    if finished is None or finished.unanswered or finished.form != form:
        return False
    return output.final.exists()


def finish(journal: Journal, summary: Summary, form: str) -> None:
    """Note that the output is complete; the journal stays until those of all inputs may go."""
    from bulk.journal import Finished

    journal.finish(Finished(summary.failed, summary.unanswered, form))
