"""The bundled reranker: pairs, training, evaluation and the published folder."""
