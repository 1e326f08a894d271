"""An HTTP/1.1 server on asyncio, usable without the rest of the gateway.

It offers: a listener with TLS, drain and connection limits; parsing and framing by RFC 9112 with llhttp;
timeouts, bounded buffers, pipelining, 100 (Continue); a close that loses no response (`listener.HttpServer`).
It leaves to its application (`message.RequestHandler`): routing, all response headers except Date and
Connection, error bodies, limits on body size and handler time, logs, metrics, and loading certificates.
"""
