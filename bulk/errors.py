"""Errors that a person is told of in one sentence; all are ``BulkError``.

``BulkError``
    ``TableError``: the input cannot be read, or the output cannot be written.
    ``JournalError``: the journal belongs to something else, or is in use.
    ``ServerError``: no answer will come.
        ``Refused``: the server refuses every request of this kind: token, model, address.
        ``Unavailable``: the server was away or busy for longer than it is waited for.
"""

from __future__ import annotations


class BulkError(Exception):
    """Its message is a sentence for the person who started the command, without a full stop."""


class TableError(BulkError):
    """The input cannot be read as asked, or the output cannot be written."""


class JournalError(BulkError):
    """The journal beside the output does not belong to this run, or another run uses it."""


class ServerError(BulkError):
    """The server gives no answers."""


class Refused(ServerError):
    """Every request would be refused: a wrong token, an unknown model, no such API."""


class Unavailable(ServerError):
    """No request was answered for as long as one waits."""
