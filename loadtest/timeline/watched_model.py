"""A served ``model.py`` that marks its times; the original stands beside it as ``served.py``.

Only Triton's python backend imports this file, from a copy of a model's folder.
"""

from pathlib import Path

from . import marks, served  # type: ignore[attr-defined]

TritonPythonModel = served.TritonPythonModel
marks.watch(TritonPythonModel, "execute", "execute begins")
if hasattr(served, "TextStep"):
    from . import text_reader  # type: ignore[attr-defined]

    marks.watch(text_reader.TextReader, "encode", ends="tokenized")
if hasattr(served, "EncoderThreads"):
    marks.watch(served.EncoderThreads, "_run", "run begins", "run ends")
marks.write_to(Path(__file__).with_name("marks.txt"))
