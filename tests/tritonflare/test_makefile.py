"""What ``make serve`` and ``make doctor`` start, with a stand-in for the command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_COMMAND = """\
#!/bin/sh
echo "$* GATEWAY_GRPC_PORT=$GATEWAY_GRPC_PORT"
"""


def stand_in(folder: Path) -> None:
    """A command that tells how it was called, and a model, newer than all that they are made of."""
    (folder / "bin").mkdir()
    command = folder / "bin" / "tritonflare"
    command.write_text(_COMMAND)
    command.chmod(0o755)
    (folder / ".serve").touch()
    (folder / "model").touch()


def make(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return make_any(folder, *arguments, f"MODEL={folder / 'model'}", **settings)


def make_any(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GATEWAY_", "LAYOUT", "MODELS"))
    }
    return subprocess.run(
        ["make", "--no-print-directory", *arguments, f"VENV={folder}"],
        cwd=ROOT,
        env=kept | settings,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("target", ["serve", "doctor"])
@pytest.mark.parametrize(("given", "used"), [(None, "8001"), ("9001", "9001"), ("", "")])
def test_make_turns_grpc_on_unless_another_port_or_none_is_set(
    tmp_path: Path, target: str, given: str | None, used: str
) -> None:
    stand_in(tmp_path)
    done = make(tmp_path, target, **({} if given is None else {"GATEWAY_GRPC_PORT": given}))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{target} GATEWAY_GRPC_PORT={used}\n", "")


@pytest.mark.parametrize(
    ("models", "target", "commands"),
    [
        ("", "serve", ["serve"]),
        ("all", "serve", ["export checkpoints/minilm-rerank --quick --layout joined", "serve"]),
        ("", "export", ["export --verbose --layout joined"]),
        (
            "all",
            "export",
            [
                "export --verbose --layout joined",
                "export checkpoints/minilm-rerank --verbose --layout joined",
            ],
        ),
    ],
)
def test_the_reranker_is_exported_only_where_all_models_are_asked_for(
    tmp_path: Path, models: str, target: str, commands: list[str]
) -> None:
    stand_in(tmp_path)
    published = tmp_path / "models/cf-baai-bge-reranker-base/config.pbtxt"
    published.parent.mkdir(parents=True)
    done = make(tmp_path, target, f"MODELS={models}", f"REPOSITORY={tmp_path / 'models'}")
    called = [line.partition(" GATEWAY_GRPC_PORT=")[0] for line in done.stdout.splitlines()]
    assert (done.returncode, called, done.stderr) == (0, commands, "")
    assert published.exists() == (models == "all" and target == "serve")


@pytest.mark.parametrize(("bundled", "exported"), [(True, True), (False, False)])
def test_a_reranker_of_your_own_is_kept(tmp_path: Path, bundled: bool, exported: bool) -> None:
    stand_in(tmp_path)
    published = tmp_path / "models/cf-baai-bge-reranker-base/config.pbtxt"
    published.parent.mkdir(parents=True)
    published.write_text('"minilm-rerank"' if bundled else '"order"')
    os.utime(published, (1, 1))  # older than the exporter
    done = make(tmp_path, "serve", "MODELS=all", f"REPOSITORY={tmp_path / 'models'}")
    assert done.returncode == 0
    assert ("export checkpoints/minilm-rerank" in done.stdout) == exported
    assert ("keeping the reranker" in done.stdout) == (not exported)


BUNDLED = "cf-huggingface-distilbert-sst-2-int8"


def published(folder: Path, step: str, checkpoint: str = "minilm-sst2") -> Path:
    """Weights of a model that is older than the exporter, as `tritonflare export` leaves them."""
    weights = folder / "models" / f"{BUNDLED}_{step}" / "1" / "model.onnx"
    weights.parent.mkdir(parents=True)
    weights.touch()
    os.utime(weights, (1, 1))
    ensemble = folder / "models" / BUNDLED
    ensemble.mkdir()
    (ensemble / "config.pbtxt").write_text(f'string_value: "{checkpoint}"\n')
    return weights


@pytest.mark.parametrize("given", [None, "steps"])
@pytest.mark.parametrize(
    ("step", "checkpoint", "layout"),
    [
        ("encoder_int8", "minilm-sst2", "steps"),
        ("joined_int8", "minilm-sst2", "joined"),
        ("joined_int8", "mood", None),
        ("encoder_int8", "mood", None),
        ("joined_fp32", "minilm-sst2", None),
        ("encoder_fp32", "minilm-sst2", None),
    ],
)
def test_the_bundled_model_keeps_its_layout_and_yours_is_not_exported(
    tmp_path: Path, step: str, checkpoint: str, layout: str | None, given: str | None
) -> None:
    stand_in(tmp_path)
    published(tmp_path, step, checkpoint)
    settings = {} if given is None else {"LAYOUT": given}
    done = make_any(tmp_path, "serve", f"REPOSITORY={tmp_path / 'models'}", **settings)
    assert done.returncode == 0, done.stderr
    assert (f"export --quick --layout {given or layout}" in done.stdout) == (layout is not None)
    assert ("keeping the model" in done.stdout) == (layout is None)


@pytest.mark.parametrize("model", ["classifier", "reranker"])
@pytest.mark.parametrize(
    ("present", "given", "exported"),
    [
        ("joined", "steps", "steps"),
        ("steps", "joined", "joined"),
        ("steps", "steps", None),
        ("joined", "joined", None),
        ("steps", None, None),
    ],
)
def test_another_layout_is_exported_where_it_was_given_and_nothing_else_is_new(
    tmp_path: Path, model: str, present: str, given: str | None, exported: str | None
) -> None:
    stand_in(tmp_path)
    step = {"joined": "joined_int8", "steps": "encoder_int8"}[present]
    weights = published(tmp_path, step)
    os.utime(weights)  # newer than the exporter
    options = [f"REPOSITORY={tmp_path / 'models'}"]
    checkpoint = ""
    if model == "reranker":
        checkpoint = "checkpoints/minilm-rerank "
        ensemble = tmp_path / "models/cf-baai-bge-reranker-base"
        ensemble.mkdir()
        (ensemble / "config.pbtxt").write_text('"minilm-rerank"')
        weights = Path(f"{ensemble}_{step}") / "1" / "model.onnx"
        weights.parent.mkdir(parents=True)
        weights.touch()
        options += ["MODELS=all", f"MODEL={tmp_path / 'model'}"]
    done = make_any(tmp_path, "serve", *options, *([] if given is None else [f"LAYOUT={given}"]))
    assert done.returncode == 0, done.stderr
    called = [line.partition(" GATEWAY_GRPC_PORT=")[0] for line in done.stdout.splitlines()]
    wanted = [] if exported is None else [f"export {checkpoint}--quick --layout {exported}"]
    assert [line for line in called if "minilm-rerank" in line or model == "classifier"] == [
        *wanted,
        *(["serve"] if model == "classifier" else []),
    ]


@pytest.mark.parametrize("before", [None, "encoder_int8", "joined_int8"])
def test_what_was_exported_is_not_exported_again_at_the_next_start(
    tmp_path: Path, before: str | None
) -> None:
    """The export that changes the layout removes the file that make looked at."""
    stand_in(tmp_path)
    old = None if before is None else published(tmp_path, before)
    new = tmp_path / "models" / f"{BUNDLED}_joined_int8" / ("1" if old is None else "2") / "model.onnx"
    command = tmp_path / "bin" / "tritonflare"
    export = (
        f"rm -rf {tmp_path / 'models' / BUNDLED}_{before}; mkdir -p {new.parent}; touch -t 200001010000 {new}"
    )
    command.write_text(f'#!/bin/sh\necho "$*"\nif [ "$1" = export ]; then {export}; fi\n')
    options = [f"REPOSITORY={tmp_path / 'models'}", "LAYOUT=joined"]
    runs = [make_any(tmp_path, "serve", *options) for _ in range(2)]
    assert [run.stdout for run in runs] == ["export --quick --layout joined\nserve\n", "serve\n"]
