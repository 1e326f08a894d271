from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "docs/*/*.md",
        "examples/*/*.md",
        "examples/*.md",
        "requirements/*.md",
        "checkpoints/*/*.md",
        "model_repository/*.md",
    )
    for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_placeholder_is_left_and_every_local_link_leads_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert not re.findall(r"@[A-Z0-9]+@", text)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        page = document.parent / target if target else document
        assert page.exists(), target
        assert not anchor or anchor in anchors(page.read_text(encoding="utf-8")), f"{target}#{anchor}"


def prose(text: str) -> str:
    """A document without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)


def anchors(text: str) -> set[str]:
    """The fragments by which a page's headings can be linked, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def wrong_tables(text: str) -> list[str]:
    """The first row of each block of rows that a renderer does not show as one whole table.

    A table is a header, a delimiter row and rows with as many cells; a blank line ends it, so that rows
    behind one are a paragraph of pipes.
    """
    wrong = []
    for block in re.findall(r"(?:^\|.*\n?)+", prose(text), re.M):
        rows = [re.split(r"(?<!\\)\|", row.strip().strip("|")) for row in block.splitlines()]
        delimited = len(rows) > 1 and all(re.fullmatch(r" *:?-+:? *", cell) for cell in rows[1])
        if not delimited or any(len(row) != len(rows[0]) for row in rows):
            wrong.append(block.splitlines()[0])
    return wrong


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_table_is_rendered_with_all_its_rows(document: Path) -> None:
    assert wrong_tables(document.read_text(encoding="utf-8")) == []


def test_a_table_that_a_blank_line_cuts_is_found() -> None:
    whole = "| a | b |\n|---|---|\n| 1 | 2 |\n"
    assert wrong_tables(f"text\n\n{whole}") == []
    assert wrong_tables(f"{whole}\n| 3 | 4 |\n| 5 | 6 |\n") == ["| 3 | 4 |"]
    assert wrong_tables(f"{whole}| 3 | 4 | 5 |\n") == ["| a | b |"]
    assert wrong_tables("```\n| no | table |\n```\n") == []
    assert wrong_tables("| a \\| b | c |\n| --- | :-: |\n") == []


ON_THE_PATH = {
    "cd",
    "curl",
    "docker",
    "echo",
    "export",
    "for",
    "git",
    "grpcurl",
    "kubectl",
    "make",
    "npm",
    "npx",
    "printf",
    "python3",
    "sh",
    "sudo",
}
"""Commands of a machine that can follow the documents, shell keywords included."""
INSTALLED = {"tritonflare", "python", "pip", "locust"}
"""What make installs into an environment."""


def commands(text: str) -> list[str]:
    """What a reader pastes: lines behind ``$`` of consoles, and shell scripts; one a logical line."""
    found = []
    for kind, block in re.findall(r"^```(console|sh)\n(.*?)^```", text, re.S | re.M):
        lines = re.sub(r"\\\n\s*", "", block).splitlines()
        found += [line.removeprefix("$ ") for line in lines if kind == "sh" or line.startswith("$ ")]
    return found


def program(command: str) -> str:
    """The word that has to be found, behind assignments."""
    return re.sub(r"^(?:\w+=(?:\$\([^)]*\)|\S*)\s*)*", "", command).partition("#")[0].split(" ")[0]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_document_can_be_pasted(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for command in commands(text):
        name = program(command)
        environment = re.fullmatch(r"\.venv(?:-\w+)?/bin/(\w+)", name)
        if environment:
            assert environment[1] in INSTALLED, command
        else:
            assert not name or name in ON_THE_PATH, command
    # A page that only mentions the command also gives its path.
    if document.parent == ROOT / "docs" or document == ROOT / "README.md":
        assert not re.search(r"`tritonflare [a-z]", text) or ".venv/bin/tritonflare" in text


def test_a_command_that_is_not_on_the_path_is_found() -> None:
    console = "```console\n$ A=1 B=$(x y) tritonflare serve\n3f1c\n$ pip install \\\n    x\n```\n"
    text = f"{console}```sh\nlocust -f x\n```\n"
    assert [program(command) for command in commands(text)] == ["tritonflare", "pip", "locust"]
    assert program("TOKEN=$(a b)   # c") == ""


def test_no_document_installs_this_from_an_index_that_does_not_have_it() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.md", "*.py", "*.yml", "*.toml", "*Dockerfile", "Makefile"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.split()  # fmt: skip
    files = listed or [str(path.relative_to(ROOT)) for path in DOCUMENTS]
    pattern = re.compile(r"pip install[^\n]*[ '\"]tritonflare\b")
    assert [name for name in files if pattern.search((ROOT / name).read_text(encoding="utf-8"))] == []


def test_an_error_names_the_command_as_it_was_called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tritonflare.main import main

    monkeypatch.setenv("GATEWAY_TRITON_URL", "10.0.0.1:8001")
    monkeypatch.setattr(sys, "argv", [".venv/bin/tritonflare", "serve"])
    with pytest.raises(SystemExit):
        main()
    assert "run `.venv/bin/tritonflare gateway`." in capsys.readouterr().err


def test_the_snippets_about_workers_are_those_that_the_tests_of_clients_run() -> None:
    project = ROOT / "tests/clients/js-latest"
    folders = (ROOT / "examples/worker", ROOT / "examples/worker/src", project, project / "project")
    files = [path.read_text(encoding="utf-8") for folder in folders for path in folder.glob("*.*s*")]
    page = (ROOT / "docs/workers.md").read_text(encoding="utf-8")
    shown = re.findall(r"```(?:js|ts|jsonc)\n(.*?)```", page, re.S)
    assert shown
    for snippet in shown:
        assert any(snippet in text for text in files), snippet


def test_every_dependency_is_justified_in_contributing() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = project.partition("\ndependencies = [")[2].partition("\n[tool.")[0]
    needed = {name.replace("_", "-") for name in re.findall(r'"([\w.-]+)(?:\[[\w,]+\])?[<>=]', section)}
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Dependencies")[2]
    reasons = {name.partition("[")[0] for name in re.findall(r"`([^`]+)`", table)}
    assert "grpcio" in needed
    assert {name for name in needed - reasons if not name.startswith("types-")} == set()
