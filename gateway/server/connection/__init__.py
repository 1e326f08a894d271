"""One HTTP/1.1 connection: its states, its timers, and how it ends."""
