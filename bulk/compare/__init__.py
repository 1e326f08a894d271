"""The same texts to two servers: differing labels, shift of scores, latency, and which threshold to take."""
