"""The builder's parts, in the test's own process."""

from __future__ import annotations

import dataclasses
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from plans import trtexec
from plans.cache import CacheError, PlanCache, plan_key
from plans.gate import judge, texts_per_second
from plans.host import Host, NoTensorRT, tensorrt_version
from plans.kit import INPUTS, SCHEMA, Batch, KitError, Limits, Profile, read_kit

from export.errors import ExportError
from export.tensorrt import kit as exported
from export.tensorrt.kit import KitModel, Samples, plan_limits, write_kit
from tests.support.plain_classifier import Kits, make_kits, plain_model, write_configs

HOST = Host(Path("/usr/src/tensorrt/bin/trtexec"), "11.2.1.2", "NVIDIA L4", "8.9")
PROFILES = (Profile((1, 16), (64, 16), (64, 16)), Profile((1, 32), (32, 32), (64, 32)))
FP16 = Limits(0.002, 0.998, 1.0)


@pytest.fixture
def made(tmp_path: Path) -> Kits:
    return make_kits(tmp_path, fp16=plain_model(half=True), int8=plain_model())


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v110201] [b2] # trtexec --help", "11.2.1.2"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v101401] [b48] # trtexec --help", "10.14.1.48"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v100300]", "10.3.0"),
    ],
)
def test_the_banner_gives_the_version(banner: str, version: str) -> None:
    assert tensorrt_version(banner) == version


@pytest.mark.parametrize("banner", ["", "[TensorRT v8601]", "[TensorRT v08601]", "bash: trtexec: not found"])
def test_a_banner_with_an_unknown_version_is_refused(banner: str) -> None:
    with pytest.raises(NoTensorRT):
        tensorrt_version(banner)


def test_tensorrt_11_gets_no_precision_flag() -> None:
    flags = trtexec.build_flags(HOST, PROFILES, ["--builderOptimizationLevel=4"])
    command = trtexec.build_command(HOST, Path("a.onnx"), Path("a.plan"), Path("t.cache"), flags)
    assert command == [
        "/usr/src/tensorrt/bin/trtexec",
        *("--onnx=a.onnx", "--saveEngine=a.plan", "--timingCacheFile=t.cache"),
        *("--profile=0", "--minShapes=input_ids:1x16,attention_mask:1x16"),
        "--optShapes=input_ids:64x16,attention_mask:64x16",
        "--maxShapes=input_ids:64x16,attention_mask:64x16",
        *("--profile=1", "--minShapes=input_ids:1x32,attention_mask:1x32"),
        "--optShapes=input_ids:32x32,attention_mask:32x32",
        "--maxShapes=input_ids:64x32,attention_mask:64x32",
        *("--builderOptimizationLevel=4", "--skipInference"),
    ]


def test_tensorrt_10_is_asked_for_strong_typing_and_nothing_else_differs() -> None:
    ten = dataclasses.replace(HOST, tensorrt="10.14.1.48")
    assert trtexec.build_flags(ten, PROFILES, []) == [
        "--stronglyTyped",
        *trtexec.build_flags(HOST, PROFILES, []),
    ]


def test_a_run_uses_real_inputs_and_the_profile_of_their_length() -> None:
    batch = Batch((3, 32), "32_0", 0.0, (), ())
    command = trtexec.answer_command(HOST, Path("a.plan"), 1, batch, Path("/kit/samples"), Path("out.json"))
    assert command[1:5] == [
        "--loadEngine=a.plan", "--useProfile=1", "--shapes=input_ids:3x32,attention_mask:3x32",
        "--loadInputs=input_ids:/kit/samples/32_0.input_ids.bin,"
        "attention_mask:/kit/samples/32_0.attention_mask.bin",
    ]  # fmt: skip
    assert "--iterations=1" in command
    assert "--exportOutput=out.json" in command
    timing = trtexec.timing_command(HOST, Path("a.plan"), 1, batch, Path("/kit/samples"), Path("out.json"))
    assert timing[1:5] == command[1:5]
    assert {"--warmUp=500", "--duration=3", "--exportTimes=out.json"} <= set(timing)


def test_each_ingredient_changes_the_key() -> None:
    flags = trtexec.build_flags(HOST, PROFILES, [])
    keys = [
        plan_key(HOST, "a" * 64, flags),
        plan_key(dataclasses.replace(HOST, tensorrt="11.2.1.3"), "a" * 64, flags),
        plan_key(dataclasses.replace(HOST, gpu="NVIDIA L40S"), "a" * 64, flags),
        plan_key(dataclasses.replace(HOST, compute_capability="9.0"), "a" * 64, flags),
        plan_key(HOST, "b" * 64, flags),
        plan_key(HOST, "a" * 64, [*flags, "--builderOptimizationLevel=5"]),
        plan_key(HOST, "a" * 64, trtexec.build_flags(HOST, PROFILES[:1], [])),
    ]
    assert len(set(keys)) == len(keys)
    assert plan_key(dataclasses.replace(HOST, trtexec=Path("/elsewhere")), "a" * 64, flags) == keys[0]


def test_the_timing_cache_is_shared_by_models_but_not_by_hosts(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    assert cache.timing_cache(HOST) == cache.timing_cache(dataclasses.replace(HOST))
    assert cache.timing_cache(HOST) != cache.timing_cache(dataclasses.replace(HOST, gpu="NVIDIA L40S"))


def test_only_one_run_works_on_a_cache(tmp_path: Path) -> None:
    with (
        PlanCache(tmp_path).locked(),
        pytest.raises(CacheError, match="another run"),
        PlanCache(tmp_path).locked(),
    ):
        pass
    with PlanCache(tmp_path).locked():
        pass


def test_a_failed_build_leaves_no_plan(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)

    def build() -> None:
        with cache.building("k", {}) as plan:
            plan.write_bytes(b"half")
            raise trtexec.TrtexecError("killed")

    with pytest.raises(trtexec.TrtexecError):
        build()
    assert cache.plan("k") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("Serialization assertion ... failed. Version tag does not match", "built again"),
        ("must have same input types. But they are of types Half and Float.", "mixes FP16 and FP32"),
        ("Error Code 2: OutOfMemory (Requested size was 1 bytes.) out of memory", "memory is full"),
        ("something new", "something new."),
    ],
)
def test_known_failures_are_explained(said: str, hint: str) -> None:
    output = f"[I] Starting\n[09/25/2026-10:00:02] [E] [TRT] {said}\n[E] Engine set up failed\n"
    sentence = trtexec.explain(output, 1)
    assert hint in sentence
    assert said in sentence
    assert "\n" not in sentence


def test_logits_that_are_no_numbers_are_read_as_such(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text('[ { "name" : "logits" , "dimensions" : "2x2" , "values" : [ nan, -inf, 1, -2.5e-05 ] } ]')
    first, second = trtexec.read_logits(out)
    assert not any(map(math.isfinite, first))
    assert second == [1.0, -2.5e-05]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '[{"name": "logits", "dimensions": "2x2", "values": [1]}]',
        '[{"name": "logits", "dimensions": "1"}]',
        '[{"name": "other", "dimensions": "1x1", "values": [1]}]',
    ],
)
def test_output_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "out.json").write_text(text)
    with pytest.raises(trtexec.TrtexecError):
        trtexec.read_logits(tmp_path / "out.json")


@pytest.mark.parametrize("text", ["[]", '[{"startComputeMs": 100, "computeMs": 1}]', "{"])
def test_times_without_a_run_after_the_warm_up_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "out.json").write_text(text)
    with pytest.raises(trtexec.TrtexecError):
        trtexec.read_median_ms(tmp_path / "out.json")


def _batch(count: int, *, labelled: bool = True) -> Batch:
    """``count`` texts whose FP32 model always says, rightly, label 0."""
    labels = ((0,),) * count if labelled else ()
    return Batch((count, 16), "f", 1.0, ((2.0, -2.0),) * count, labels)


def _found(count: int, wrong: int) -> list[tuple[float, float]]:
    return [(-1.0, 1.0)] * wrong + [(1.0, -1.0)] * (count - wrong)


@pytest.mark.parametrize(("precision", "wrong", "passes"), [
    ("fp16", 2, True), ("fp16", 3, False), ("int8", 5, True), ("int8", 6, False),
])  # fmt: skip
def test_the_accuracy_limit_is_0_2_points_for_fp16_and_0_5_for_int8(
    precision: str, wrong: int, passes: bool
) -> None:
    limits = Limits(**plan_limits(precision))
    verdict = judge([_found(1000, wrong)], [_batch(1000)], "single_label_classification", limits)
    assert (not verdict.failed) is passes, verdict


@pytest.mark.parametrize(("precision", "wrong", "passes"), [
    ("fp16", 2, True), ("fp16", 3, False), ("int8", 15, True), ("int8", 16, False),
])  # fmt: skip
def test_the_agreement_limit_is_99_8_for_fp16_and_98_5_for_int8(
    precision: str, wrong: int, passes: bool
) -> None:
    limits = Limits(**plan_limits(precision))
    verdict = judge(
        [_found(1000, wrong)], [_batch(1000, labelled=False)], "single_label_classification", limits
    )
    assert (not verdict.failed) is passes, verdict
    assert verdict.accuracy is None


def test_a_nan_fails_the_gate_though_every_label_agrees() -> None:
    found = [(1.0, math.nan), *_found(999, 0)]
    verdict = judge([found], [_batch(1000)], "single_label_classification", FP16)
    assert verdict.failed == ("its logits are not all finite numbers",)


def test_an_answer_of_another_shape_fails_the_gate() -> None:
    assert judge([_found(9, 0)], [_batch(10)], "single_label_classification", FP16).failed
    assert judge([[(1.0,)] * 10], [_batch(10)], "single_label_classification", FP16).failed


def test_several_labels_agree_only_as_a_whole() -> None:
    batch = Batch((1, 16), "f", 1.0, ((1.0, 1.0, -1.0),), ((0, 1),))
    same = judge([[(0.1, 3.0, -9.0)]], [batch], "multi_label_classification", FP16)
    other = judge([[(0.1, -3.0, -9.0)]], [batch], "multi_label_classification", FP16)
    assert (same.agreement, same.accuracy) == (1.0, 1.0)
    assert (other.agreement, other.accuracy) == (0.0, 0.0)


def test_throughput_is_weighed_by_how_frequent_a_length_is() -> None:
    short, long = Batch((64, 16), "s", 0.9, (), ()), Batch((8, 128), "l", 0.1, (), ())
    assert texts_per_second([1.0, 8.0], [short, long]) == pytest.approx(1 / (0.9 / 64000 + 0.1 / 1000))


def test_the_builder_reads_what_the_exporter_writes(made: Kits) -> None:
    kit = read_kit(made.folder)
    assert exported.SCHEMA == SCHEMA
    assert [c.precision for c in kit.candidates] == ["fp16", "int8"]
    assert kit.candidates[1].limits == Limits(**plan_limits("int8"))
    assert [p.max for p in kit.profiles] == [(64, 16), (64, 32)]
    assert sum(b.shape[0] for b in kit.judged) == 120
    assert sum(b.share for b in kit.timed) == pytest.approx(1)
    assert all(len(b.logits) == len(b.labels) == b.shape[0] for b in kit.judged)
    for batch in (*kit.judged, *kit.timed):
        assert kit.profiles[kit.profile_of(batch.shape)].max[1] == batch.shape[1]
        for name in INPUTS:
            values = np.fromfile(made.folder / "samples" / f"{batch.file}.{name}.bin", "<i8")
            assert values.reshape(batch.shape).shape == batch.shape


def test_timed_batches_are_full_and_hold_real_sentences(made: Kits) -> None:
    kit = read_kit(made.folder)
    assert [b.shape for b in kit.timed] == [(64, 16), (32, 32)]
    for batch in kit.timed:
        mask = np.fromfile(made.folder / "samples" / f"{batch.file}.attention_mask.bin", "<i8")
        assert (mask.reshape(batch.shape).sum(axis=1) > batch.shape[1] - 16).all()


def test_a_kit_that_names_a_folder_outside_is_refused(made: Kits) -> None:
    kit = made.folder / "kit.json"
    content = json.loads(kit.read_text())
    content["candidates"][0]["encoder"] = "../elsewhere"
    kit.write_text(json.dumps(content))
    with pytest.raises(KitError, match="outside"):
        read_kit(made.folder)


def test_writing_a_kit_again_replaces_it_whole(made: Kits) -> None:
    (made.folder / "left.over").touch()
    model = KitModel("n", "e", "single_label_classification", 32, "")
    candidate = exported.PlanCandidate(
        "fp16", made.kits / "fp16.onnx", "e_plan", partial(write_configs, "e_plan")
    )
    write_kit(made.folder, model, [candidate], Samples([[1, 2]], np.zeros((1, 2), np.float32)))
    assert not (made.folder / "left.over").exists()
    assert len(read_kit(made.folder).candidates) == 1
    assert [f.name for f in made.folder.parent.iterdir()] == ["tensorrt"]


@pytest.mark.parametrize("problem", ["no fp16", "too long", "logits", "labels"])
def test_what_does_not_fit_together_is_no_kit(made: Kits, problem: str) -> None:
    model = KitModel("n", "e", "single_label_classification", 32, "")
    candidate = exported.PlanCandidate(
        "fp16", made.kits / "fp16.onnx", "e_plan", partial(write_configs, "e_plan")
    )
    candidates = [] if problem == "no fp16" else [candidate]
    rows = [[1] * (33 if problem == "too long" else 2)]
    logits = np.zeros((2 if problem == "logits" else 1, 2), np.float32)
    labels = [[0], [1]] if problem == "labels" else []
    with pytest.raises(ExportError):
        write_kit(made.folder, model, candidates, Samples(rows, logits, labels))
    assert len(read_kit(made.folder).candidates) == 2, "the kit that was there has gone"
