"""The bundled sentiment classifier: sentences, training, evaluation and the published folder."""
