"""A report in Markdown as one HTML page that needs no other file and runs no script."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from markdown_it import MarkdownIt

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; overflow-wrap: anywhere; }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 0.5rem; }
blockquote { border-left: 0.3rem solid #c33; margin: 1rem 0; padding: 0 1rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid #8888; overflow-wrap: normal; padding: 0.3rem 0.6rem; text-align: left; }
th { background: #8882; }
img { background: #fff; height: auto; max-width: 100%; }
"""


def as_page(markdown: str, title: str, pictures: Sequence[Path]) -> str:
    """The page.

    Args:
        markdown: a report of `export.evaluation.report_text`.
        title: of the page; may hold anything.
        pictures: PNG files that the Markdown shows by their names.

    Raises:
        OSError: a picture cannot be read.
    """
    sources = {
        file.name: f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
        for file in pictures
    }
    # Without HTML: texts of other people cannot become elements even if a cell forgot to escape one.
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(markdown)
    for token in tokens:
        if token.type == "th_open":
            token.attrSet("scope", "col")
        for child in token.children or ():
            if child.type == "image":
                child.attrSet("src", sources.get(str(child.attrGet("src")), "data:,"))
    body = reader.renderer.render(tokens, reader.options, {})
    # A wide table scrolls by itself; the keyboard reaches it too.
    body = body.replace("<table>", '<div class="table" role="region" aria-label="Table" tabindex="0"><table>')
    body = body.replace("</table>", "</table></div>")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
