"""A small reranker: pairs, training, evaluation and the published folder."""
