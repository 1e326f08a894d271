"""INT8 for the CPU, as passes over a finished FP32 graph.

Whatever wrote the graph (our writer or torch), a pass replaces its multiplications with
constant weights and its word table, and leaves the rest alone. Every scheme gives a text the
same score with any neighbours; a scale taken over a whole batch never ships
(docs/decisions/token-wise-int8.md).
"""
