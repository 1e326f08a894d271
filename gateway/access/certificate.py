"""The gateway's TLS certificate and its key, reloaded when they change."""

from __future__ import annotations

import ssl
from pathlib import Path

from gateway.server.alpn import NO_APPLICATION_PROTOCOL, PROTOCOL, OfferContext, OfferReader
from gateway.settings import ConfigurationError


class Certificate:
    """Serves a certificate chain and its private key, both in PEM.

    Raises:
        ConfigurationError: one of them cannot be read, is not PEM, is encrypted, or they do not match.
    """

    def __init__(self, chain: Path, key: Path) -> None:
        self._chain, self._key = chain, key
        self.pem = (b"", b"")
        """The private key and the chain that are in use, in PEM."""
        self.context = self._read()
        """To listen with; each handshake uses the pair that is current at that time."""
        self._in_use = self.context
        self.context.sni_callback = self._choose

    @property
    def files(self) -> tuple[Path, Path]:
        """The files to watch."""
        return self._chain, self._key

    def read_again(self) -> str:
        """Use the present content of the files for new connections; return a line for the log.

        Raises:
            ConfigurationError: as for the class; the former pair stays in use.
        """
        self._in_use = self._read()
        return "TLS certificate reloaded"

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> int | None:
        if isinstance(connection, OfferReader) and connection.is_foreign:
            return NO_APPLICATION_PROTOCOL
        # Loading into the context that listens would leave it with half a pair, should the files be
        # exchanged while they are read. OpenSSL calls this for clients that name no server, too.
        connection.context = self._in_use
        return None

    def _read(self) -> ssl.SSLContext:
        context = _context()
        files = f"GATEWAY_TLS_CERTIFICATE {self._chain} and GATEWAY_TLS_KEY {self._key}"
        chain = _read_file("GATEWAY_TLS_CERTIFICATE", self._chain)
        key = _read_file("GATEWAY_TLS_KEY", self._key)
        try:
            context.load_cert_chain(self._chain, self._key, password=_no_password)
        except ssl.SSLError as exc:
            reason = "the key does not match the certificate" if "MISMATCH" in str(exc) else "one is not PEM"
            raise ConfigurationError(f"{files} cannot be used: {reason}.") from exc
        except OSError as exc:
            raise ConfigurationError(f"{files} cannot be read: {exc.strerror}.") from exc
        self.pem = (key, chain)
        return context


def _read_file(name: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"{name} {file} cannot be read: {exc.strerror}.") from exc


def _context() -> ssl.SSLContext:
    context = OfferContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols([PROTOCOL])
    return context


def _no_password() -> str:
    # Without this, OpenSSL would prompt on the terminal and block.
    raise ConfigurationError("GATEWAY_TLS_KEY is encrypted: give the gateway a key without a password.")
