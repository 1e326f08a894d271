"""``tritonflare rerank`` as people call it, before the real gateway."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from click.testing import CliRunner

from tests.support.fake_triton import relevance, reranker
from tests.support.files_of_texts import read_csv
from tests.support.gateway_process import gateway_before_fake
from tests.support.harness import ANY_TOKEN
from tritonflare.main import cli


def test_every_row_gets_the_score_of_its_query_and_document(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    documents = ("who", "nobody bakes", "who bakes {}", "nothing")
    pairs = [(f"who bakes {n // 7}", documents[n % 4].format(n // 7)) for n in range(70)]
    pairs[30], pairs[31] = ("", "a"), ("who bakes 4", "")
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("id", "document", "query"), *((n, d, q) for n, (q, d) in enumerate(pairs))]
        )
    token = {"TOKEN": ANY_TOKEN}
    with gateway_before_fake(tmp_path / "log", reranker()) as port:
        words = ["rerank", str(path), "--url", f"http://127.0.0.1:{port}"]
        done = CliRunner().invoke(cli, words, env=token)
        same = CliRunner().invoke(cli, [*words, "--overwrite", "--document-column", "query"], env=token)
    assert done.exit_code == 1, done.stderr
    assert "column query and document; @cf/baai/bge-reranker-base" in done.stderr
    header, *rows = read_csv(tmp_path / "pairs.reranked.csv", "utf-8")
    assert header == ["id", "document", "query", "score", "truncated", "error"]
    for number, (row, (query, document)) in enumerate(zip(rows, pairs, strict=True)):
        assert row[:3] == [str(number), document, query]
        if number in (30, 31):
            assert row[3:] == ["", "", "no text"]
            continue
        score = 1 / (1 + math.exp(-relevance(query.encode(), document.encode())))
        assert math.isclose(float(row[3]), score, rel_tol=1e-6)
        assert row[4:] == ["false", ""]
    assert len({row[3] for row in rows}) == 4
    assert same.exit_code == 2
    assert "query would be query and document" in same.stderr
