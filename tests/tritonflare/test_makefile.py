"""What ``make serve`` and ``make doctor`` start, with a stand-in for the command."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
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
        # What you serve yourself decides nothing here; of two values, the later counts.
        ["make", "--no-print-directory", f"REPOSITORY={folder / 'none'}", *arguments, f"VENV={folder}"],
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


def for_gpu(folder: Path) -> list[str]:
    """The stand-in as the environment for a GPU, and a Python that finds a driver."""
    stand_in(folder)
    (folder / ".serve-gpu").touch()
    python = folder / "python"
    python.write_text(f'#!/bin/sh\necho "$*" >> {folder / "asked"}\n')
    python.chmod(0o755)
    return [f"REPOSITORY={folder / 'models'}", f"GPU_VENV={folder}", f"PYTHON={python}"]


def publish_for_gpu(folder: Path, ensemble: str = BUNDLED, text: str = '"minilm-sst2"') -> Path:
    weights = folder / "models" / f"{ensemble}_encoder_fp16" / "1" / "model.onnx"
    weights.parent.mkdir(parents=True)
    weights.touch()
    config = folder / "models" / ensemble / "config.pbtxt"
    config.parent.mkdir()
    config.write_text(f'string_value: "cuda"\nstring_value: "fp16"\n{text}\n')
    return config


EXPORT = "export --quick --target cuda --if-changed"


@pytest.mark.parametrize(
    ("models", "exports"),
    [
        ("", [EXPORT]),
        ("all", [EXPORT, EXPORT.replace("export", "export checkpoints/minilm-rerank")]),
    ],
)
def test_serving_on_a_gpu_publishes_the_bundled_models_for_it(
    tmp_path: Path, models: str, exports: list[str]
) -> None:
    done = make_any(tmp_path, "serve-gpu", f"MODELS={models}", *for_gpu(tmp_path))
    called = [line.partition(" GATEWAY_GRPC_PORT=") for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, "")
    assert [line[0] for line in called] == [*exports, "serve --device cuda"]
    assert called[-1][2] == "8001"
    assert (tmp_path / "asked").read_text() == "-m embedded.gpu\n"


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        ('string_value: "cpu"\n"minilm-sst2"', False),
        ('string_value: "cuda"\nstring_value: "fp16"\n"minilm-sst2"', False),  # --if-changed decides
        ('string_value: "cuda"\nstring_value: "fp32"\n"minilm-sst2"', True),
        ('string_value: "cpu"\n"mood"', True),
    ],
)
def test_what_you_published_yourself_is_kept_for_a_gpu_too(tmp_path: Path, config: str, kept: bool) -> None:
    options = for_gpu(tmp_path)
    publish_for_gpu(tmp_path).write_text(config)
    done = make_any(tmp_path, "serve-gpu", *options)
    assert done.returncode == 0, done.stderr
    assert (EXPORT in done.stdout) == (not kept)
    assert (f"keeping {BUNDLED}" in done.stdout) == kept
    assert "serve --device cuda" in done.stdout


@pytest.mark.parametrize("checkpoint", ["minilm-sst2", "mood"])
def test_after_a_gpu_the_bundled_model_is_published_for_the_cpu_again(
    tmp_path: Path, checkpoint: str
) -> None:
    stand_in(tmp_path)
    publish_for_gpu(tmp_path, text=f'"{checkpoint}"')
    done = make_any(tmp_path, "serve", f"REPOSITORY={tmp_path / 'models'}")
    assert done.returncode == 0, done.stderr
    assert ("export --quick --layout joined" in done.stdout) == (checkpoint == "minilm-sst2")
    assert ("keeping the model" in done.stdout) == (checkpoint != "minilm-sst2")


def test_after_a_gpu_the_bundled_reranker_is_published_for_the_cpu_again(tmp_path: Path) -> None:
    stand_in(tmp_path)
    publish_for_gpu(tmp_path, "cf-baai-bge-reranker-base", '"minilm-rerank"')
    done = make(tmp_path, "serve", f"REPOSITORY={tmp_path / 'models'}")
    assert done.returncode == 0, done.stderr
    assert "export checkpoints/minilm-rerank --quick --layout joined" in done.stdout


def test_the_driver_is_looked_for_by_any_python_before_anything_is_installed(tmp_path: Path) -> None:
    python = tmp_path / "python"
    # -S: no packages, as in the Python of the system.
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -W error "$@"\n')
    python.chmod(0o755)
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        missing = True
    else:
        missing = False
    done = make_any(tmp_path, "gpu-driver", f"PYTHON={python}")
    assert (done.returncode != 0) == missing, done.stderr
    if missing:
        first = done.stderr.splitlines()[0]
        assert first.startswith(
            "NVIDIA driver: not found. Install NVIDIA's driver, 525 or newer; `make serve`"
        )
        done = make_any(tmp_path, "serve-gpu", f"PYTHON={python}", f"GPU_VENV={tmp_path / 'venv'}")
        assert done.returncode != 0
        assert not (tmp_path / "venv").exists()


def test_the_size_is_told_before_it_is_downloaded(tmp_path: Path) -> None:
    options = for_gpu(tmp_path)
    (tmp_path / ".serve-gpu").unlink()
    told = tmp_path / "bin" / "python"
    told.write_text('#!/bin/sh\necho "python $*"\n')
    told.chmod(0o755)
    (tmp_path / "bin" / "pip").symlink_to(told)
    lines = make_any(tmp_path, "serve-gpu", *options).stdout.splitlines()
    told_at = next(number for number, line in enumerate(lines) if "GB to download" in line)
    assert "requirements/serve-gpu.txt" in lines[told_at + 1]


def pinned(name: str) -> dict[str, set[str]]:
    """The versions of each package in a lock file."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(
        r"^([\w.-]+)==(\S+)", (ROOT / "requirements" / name).read_text(), re.M
    ):
        found.setdefault(package, set()).add(version)
    return found


def test_no_cuda_is_on_the_way_of_serving_on_a_cpu_and_no_second_onnxruntime_on_that_of_a_gpu() -> None:
    cpu, gpu = pinned("serve.txt"), pinned("serve-gpu.txt")
    assert {name for name in cpu if name.startswith("nvidia") or "gpu" in name or "cuda" in name} == {
        "nvidia-pytriton"
    }
    more = {name for name in gpu if name.startswith("nvidia")} - {"nvidia-pytriton"}
    assert {"nvidia-cudnn-cu12", "nvidia-cublas-cu12", "nvidia-ml-py"} <= more
    assert set(gpu) == set(cpu) - {"onnxruntime"} | {"onnxruntime-gpu"} | more
    assert {name: gpu[name] for name in set(cpu) & set(gpu)} == {
        name: cpu[name] for name in set(cpu) & set(gpu)
    }
    text = (ROOT / "requirements" / "serve-gpu.txt").read_text()
    assert "://" not in text
    assert text.count("--hash=sha256:") > len(gpu)


@pytest.mark.parametrize(
    ("installed", "words"),
    [(True, "gpu-venv/bin/python -m tools.gpu_check --device cuda"), (False, "--device auto")],
)
def test_without_the_environment_for_a_gpu_the_check_decides_and_is_not_told_to_take_the_cpu(
    tmp_path: Path, installed: bool, words: str
) -> None:
    environment = tmp_path / "gpu-venv"
    environment.mkdir()
    if installed:
        (environment / ".serve-gpu").touch()
    done = make_any(tmp_path, "--dry-run", "gpu-check", f"GPU_VENV={environment}", "PYTHON=true")
    assert words in done.stdout.splitlines()[-1]
