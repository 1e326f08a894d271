"""All clients of rerankers in one process, because they take long to import."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from tests.clients.programs import rerank_cloudflare, rerank_cohere, rerank_litellm, rerank_llama_index
from tests.clients.programs.common import Target, run

PAGE = Path(__file__).parents[3] / "docs" / "reranking.md"


def page(target: Target) -> Any:
    """What each Python program of the page prints, by the module that it imports first."""
    printed = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M):
        program = block.replace("127.0.0.1:8787", target.http).replace("YOUR_TOKEN", target.token)
        with redirect_stdout(io.StringIO()) as output:
            exec(program, {})
        printed[" ".join(re.findall(r"^(?:from|import) (\S+)", program, re.M))] = output.getvalue()
    return printed


if __name__ == "__main__":
    run(
        {
            "cohere v1": rerank_cohere.v1,
            "cohere v2": rerank_cohere.v2,
            "cohere refused": rerank_cohere.refused,
            "cloudflare": rerank_cloudflare.ranks,
            "llama_index tei": rerank_llama_index.tei,
            "llama_index jina": rerank_llama_index.jina,
            "llama_index jina refused": rerank_llama_index.jina_refused,
            "litellm": rerank_litellm.ranks,
            "litellm best": rerank_litellm.best,
            "litellm refused": rerank_litellm.refused,
            "page": page,
        }
    )
