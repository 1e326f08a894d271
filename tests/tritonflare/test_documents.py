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
    for target in re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", text):
        assert not target or (document.parent / target).exists(), target


ON_THE_PATH = {
    "cd",
    "curl",
    "docker",
    "export",
    "for",
    "git",
    "kubectl",
    "make",
    "npm",
    "npx",
    "printf",
    "python3",
    "sh",
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
    if document.parent.name == "docs" or document == ROOT / "README.md":
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


def test_the_snippets_about_workers_are_those_of_the_example() -> None:
    files = [path.read_text(encoding="utf-8") for path in (ROOT / "examples/worker").rglob("*.*s")]
    shown = re.findall(
        r"```(?:js|ts)\n(.*?)```", (ROOT / "docs/workers.md").read_text(encoding="utf-8"), re.S
    )
    assert shown
    for snippet in shown:
        assert any(snippet in text for text in files), snippet
