"""What the gateway reads from files, at the start and again when they change."""

from __future__ import annotations

import logging
import os
from collections.abc import Coroutine, Iterator

from gateway.access.certificate import Certificate
from gateway.access.file_watch import FileWatch, follow
from gateway.access.tokens import TokenTable, load_tokens
from gateway.settings import ConfigurationError, Settings

_log = logging.getLogger("tritonflare.tokens")


class ReloadableCredentials:
    """Tokens and certificate; each process that serves keeps its own up to date.

    Args:
        settings: the settings.
        known: tokens that are good already: for one of several processes, those of a moment ago; at the first
            start of `tritonflare serve`, the one whose file is yet to be written. They are in force while the
            file cannot be read, or is not there, and the file alone counts from then on; none is right
            too, because the last one may have been revoked since.

    Raises:
        ConfigurationError: there is no token, or a file cannot be used.
    """

    def __init__(self, settings: Settings, known: TokenTable | None = None) -> None:
        self._settings = settings
        self._tokens_files = [] if settings.tokens_file is None else [settings.tokens_file]
        self._tokens_watch = FileWatch(self._tokens_files)
        self._complaint = ""
        if known is None:
            self.tokens = check_tokens(settings)
        else:
            self.tokens = known
            self._read_if_possible()
        self._certificate_watch = FileWatch(
            [file for file in (settings.tls_certificate, settings.tls_key) if file is not None]
        )
        self.certificate = check_certificate(settings)

    def tasks(self) -> Iterator[Coroutine[None, None, None]]:
        """What to run in the background."""
        if self._tokens_files:
            yield follow(self._tokens_watch, self._read_tokens, complaint=self._complaint)
        if self.certificate is not None:
            yield follow(self._certificate_watch, self.certificate.read_again)

    def _read_if_possible(self) -> None:
        if not any(map(os.path.exists, self._tokens_files)):
            return  # nothing is wrong with what is yet to come, and the watch finds it
        try:
            self._read_tokens()
        except ConfigurationError as error:
            self._complaint = str(error)
            _log.error("%s What other processes read before is in force.", error)

    def _read_tokens(self) -> str:
        self.tokens.replace(_load_tokens(self._settings, may_be_none=True))
        count = len(self.tokens)
        return f"the tokens file has changed: {count} {'token is' if count == 1 else 'tokens are'} good now"


def check_tokens(settings: Settings) -> TokenTable:
    """Read the configured tokens.

    Raises:
        ConfigurationError: there is none, or one is malformed.
    """
    return _load_tokens(settings)


def _load_tokens(settings: Settings, *, may_be_none: bool = False) -> TokenTable:
    secret = settings.api_tokens.get_secret_value() if settings.api_tokens else None
    return load_tokens(secret, settings.tokens_file, may_be_none=may_be_none)


def check_certificate(settings: Settings) -> Certificate | None:
    """Read the configured certificate; None to serve without TLS.

    Raises:
        ConfigurationError: it cannot be used.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_certificate, settings.tls_key)
