"""The configurations against the golden ones, and the rules that hold for every target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from google.protobuf import text_format
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from tritonclient.grpc import model_config_pb2 as pb

from export.spec import MAX_BATCH_SIZE, length_buckets
from tests.export.golden_configs import FOLDER, TENSORRT, configs

CONFIGS = configs()
ENCODERS = ("cpu", "cuda", "onnxruntime", "tensorrt")


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of a nested dictionary by its path."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def fields(message: Message) -> dict[str, Any]:
    return dict(leaves(MessageToDict(message, preserving_proto_field_name=True)))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_is_as_in_the_golden_file(name: str) -> None:
    golden = text_format.Parse((FOLDER / f"{name}.pbtxt").read_text(encoding="utf-8"), pb.ModelConfig())
    # python -m tests.export.golden_configs writes the files anew.
    assert fields(CONFIGS[name]) == fields(golden)


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_no_config_has_a_queue_policy_a_priority_or_a_timeout(name: str) -> None:
    words = ("policy", "priority", "timeout", "queue_size", "lower_bound")
    assert [path for path in fields(CONFIGS[name]) if any(word in path for word in words)] == []


@pytest.mark.parametrize("name", [*ENCODERS, "tokenizer", "tokenizer_padded"])
def test_every_step_batches(name: str) -> None:
    assert CONFIGS[name].HasField("dynamic_batching")
    assert CONFIGS[name].max_batch_size == MAX_BATCH_SIZE


def test_only_encoders_in_python_take_unequal_lengths() -> None:
    ragged = {name: {each.allow_ragged_batch for each in CONFIGS[name].input} for name in ENCODERS}
    assert ragged == {"cpu": {True}, "cuda": {True}, "onnxruntime": {False}, "tensorrt": {False}}


def test_the_encoder_for_cuda_names_its_device_and_its_groups_and_is_started_for_each_gpu() -> None:
    config = CONFIGS["cuda"]
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "device": "cuda",
        "group_texts": "32",
        "group_tokens": "4096",
        "pad_multiple": "8",
        "max_tokens": "100",
    }
    (group,) = config.instance_group
    # Without a list of GPUs, Triton starts as many for each that it sees.
    assert (group.kind, group.count, list(group.gpus)) == (pb.ModelInstanceGroup.KIND_GPU, 1, [])
    assert (config.backend, config.platform) == ("python", "")
    ensemble = CONFIGS["ensemble_cuda"]
    assert ensemble.parameters["tritonflare.group_texts"].string_value == "32"
    assert ensemble.parameters["tritonflare.group_tokens"].string_value == "4096"
    assert not any("group" in key for key in CONFIGS["ensemble"].parameters)
    assert ensemble.ensemble_scheduling.step[0].model_name == CONFIGS["tokenizer"].name


@pytest.mark.parametrize("name", ENCODERS)
def test_the_targets_cannot_be_told_apart_by_their_tensors(name: str) -> None:
    config = CONFIGS[name]
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [
        ("input_ids", pb.TYPE_INT64, [-1]),
        ("attention_mask", pb.TYPE_INT64, [-1]),
    ]
    assert [(t.name, t.data_type, list(t.dims)) for t in config.output] == [("logits", pb.TYPE_FP32, [3])]


def test_a_reranker_takes_a_query_beside_its_text_and_its_encoder_types_where_it_reads_them() -> None:
    typed = ["input_ids", "attention_mask", "token_type_ids"]
    for name, between in (("rerank", typed[:2]), ("rerank_types", typed)):
        ensemble, tokenizer = CONFIGS[f"ensemble_{name}"], CONFIGS[f"tokenizer_{name}"]
        for config in (ensemble, tokenizer):
            assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [
                ("QUERY", pb.TYPE_STRING, [1]),
                ("TEXT", pb.TYPE_STRING, [1]),
            ]
        assert [t.name for t in tokenizer.output] == [*between, "token_count"]
        assert set(ensemble.ensemble_scheduling.step[1].input_map) == set(between)
        assert ensemble.parameters["tritonflare.task"].string_value == "rerank"
        (sample,) = tokenizer.model_warmup
        assert set(sample.inputs) == {"QUERY", "TEXT"}
    encoder = CONFIGS["cpu_rerank_types"]
    assert [(t.name, t.data_type, t.allow_ragged_batch) for t in encoder.input] == [
        (name, pb.TYPE_INT64, True) for name in typed
    ]
    assert all(set(sample.inputs) == set(typed) for sample in encoder.model_warmup)
    assert all(
        set(spec.input) == set(typed)
        for spec in CONFIGS["tensorrt_rerank_types"].optimization.cuda.graph_spec
    )


def test_buckets_profiles_graphs_and_warm_up_are_one_list() -> None:
    buckets = list(length_buckets(TENSORRT.max_tokens))
    encoder, tokenizer = CONFIGS["tensorrt"], CONFIGS["tokenizer_padded"]
    assert tokenizer.parameters["length_buckets"].string_value == ",".join(map(str, buckets))
    assert list(encoder.instance_group[0].profile) == [str(index) for index, _ in enumerate(buckets)]
    specs = encoder.optimization.cuda.graph_spec
    for tensor in ("input_ids", "attention_mask"):
        assert sorted({spec.input[tensor].dim[0] for spec in specs}) == buckets
        assert sorted({s.inputs[tensor].dims[0] for s in encoder.model_warmup}) == buckets
    assert len({(s.batch_size, s.input["input_ids"].dim[0]) for s in specs}) == len(specs)
