"""HTTP/1.1 on asyncio: listening, parsing, bounds on connections. It knows nothing of the API."""
