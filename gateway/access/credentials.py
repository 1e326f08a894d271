"""Credentials that are read from files, at the start and again when the files change."""

from __future__ import annotations

import logging
import os
from collections.abc import Coroutine, Iterator

from gateway.access.certificate import Certificate
from gateway.access.file_watch import FileWatch, follow
from gateway.access.token_uses import TokenUses, record_uses, uses_file
from gateway.access.tokens import TokenTable, load_tokens
from gateway.settings import ConfigurationError, Settings

_log = logging.getLogger("tritonflare.tokens")


class ReloadableCredentials:
    """Tokens and certificate; each serving process keeps its own up to date.

    Args:
        settings: the settings.
        known: tokens that are valid already: for a worker, those that the pool's process read last; at the
            first start of `tritonflare serve`, the one whose file is not written yet. They are in force until
            the file can be read; from then on the file alone counts, even if it is empty, because the last
            token may have been revoked since.

    Raises:
        ConfigurationError: there is no token, or a file cannot be used.
    """

    def __init__(self, settings: Settings, known: TokenTable | None = None) -> None:
        self._settings = settings
        self._tokens_files = [] if settings.tokens_file is None else [settings.tokens_file]
        self._tokens_watch = FileWatch(self._tokens_files)
        self._uses = token_uses(settings)
        self._file_error = ""
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
        """Return the background tasks that reload the files."""
        if self._uses is not None:
            yield record_uses(self.tokens, self._uses)
        if self._tokens_files:
            yield follow(self._tokens_watch, self._read_tokens, file_error=self._file_error)
        if self.certificate is not None:
            yield follow(self._certificate_watch, self.certificate.read_again)

    def _read_if_possible(self) -> None:
        if not any(map(os.path.exists, self._tokens_files)):
            return  # not written yet; the watch will find it
        try:
            self._read_tokens()
        except ConfigurationError as error:
            self._file_error = str(error)
            _log.error("%s The tokens that were read before stay in force.", error)

    def _read_tokens(self) -> str:
        self.tokens.replace(_load_tokens(self._settings, may_be_empty=True))
        count = len(self.tokens)
        return f"tokens file reloaded: {count} valid {'token' if count == 1 else 'tokens'}"


def check_tokens(settings: Settings) -> TokenTable:
    """Read the configured tokens.

    Raises:
        ConfigurationError: there is none, or one is malformed.
    """
    return _load_tokens(settings)


def _load_tokens(settings: Settings, *, may_be_empty: bool = False) -> TokenTable:
    secret = settings.api_tokens.get_secret_value() if settings.api_tokens else None
    return load_tokens(secret, settings.tokens_file, may_be_empty=may_be_empty)


def token_uses(settings: Settings) -> TokenUses | None:
    """Return where the last use of each token is noted; None without a tokens file."""
    if settings.tokens_file is None:
        return None
    return TokenUses(settings.token_uses_file or uses_file(settings.tokens_file))


def check_certificate(settings: Settings) -> Certificate | None:
    """Read the configured certificate; None to serve without TLS.

    Raises:
        ConfigurationError: it cannot be used.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_certificate, settings.tls_key)
