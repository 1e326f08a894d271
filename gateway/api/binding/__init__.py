"""What a Worker's AI binding speaks: `/run`, and miniflare's and wrangler's ways to it."""
