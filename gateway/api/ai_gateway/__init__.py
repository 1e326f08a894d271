"""What Cloudflare's AI Gateway adds: options by header, the universal endpoint, the gateway's address."""
