"""Makes the bundled checkpoint and the golden logits; needs the extra ``torch``.

Nothing that serves imports this package.
"""
