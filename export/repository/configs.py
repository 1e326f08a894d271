"""The ``ModelConfig`` of each step and target; built as protobufs, printed as text.

There is deliberately no queue policy, priority or timeout in any of them: any of these
switches Triton's prefetching off and makes requests wait half a second
(docs/decisions/no-queue-policy.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.spec import JOINED, MAX_BATCH_SIZE, PAD_MULTIPLE, ServedModel, length_buckets, warmup_texts

# On a GPU one tokenizer process (some 25 thousand short texts a second) may not keep up with the encoder.
PADDED_TOKENIZERS = 2
# Only adjacent texts of one bucket merge, so a GPU's batcher waits a moment for the next; in µs.
QUEUE_DELAY_US = 300
# A CUDA graph saves launches, which small batches are made of; it serves exactly its own shape.
GRAPH_BATCHES = (1, 2, 4, 8)


def tokenizer_config(model: ServedModel) -> pb.ModelConfig:
    """The model's texts BYTES [1] → its encoder's inputs INT64 [S], token_count INT32 [1]."""
    config = _config(
        model.tokenizer,
        inputs=_texts(model),
        outputs=[
            *(_output(name, pb.TYPE_INT64, [-1]) for name in model.encoder_inputs),
            _output("token_count", pb.TYPE_INT32, [1]),
        ],
    )
    config.backend = "python"
    count = PADDED_TOKENIZERS if model.padded else 1
    config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_CPU, count=count)
    _set_tokenizer(config, model)
    if model.padded:
        buckets = ",".join(map(str, length_buckets(model.max_tokens)))
        config.parameters["length_buckets"].string_value = buckets
    _warm_up_with_text(config, model, "text")
    return config


def encoder_config(model: ServedModel) -> pb.ModelConfig:
    """The encoder's inputs INT64 [S] → logits FP32 [labels], run by the model's target."""
    return _ENCODERS[model.target](model)


def joined_config(model: ServedModel) -> pb.ModelConfig:
    """The model's texts BYTES [1] → logits FP32 [labels], token_count INT32 [1], in one step on the CPU."""
    config = pb.ModelConfig(
        name=model.encoder,
        backend="python",
        max_batch_size=MAX_BATCH_SIZE,
        input=_texts(model),
        output=_answers(model),
    )
    config.dynamic_batching.SetInParent()
    config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_CPU, count=model.instances)
    _set_tokenizer(config, model)
    for text in warmup_texts(model.max_tokens):
        _warm_up_with_text(config, model, text)
    return config


def ensemble_config(model: ServedModel) -> pb.ModelConfig:
    """The model's texts BYTES [1] → logits FP32 [labels], token_count INT32 [1]; has the catalogue entry."""
    config = pb.ModelConfig(
        name=model.ensemble,
        platform="ensemble",
        max_batch_size=MAX_BATCH_SIZE,
        input=_texts(model),
        output=_answers(model),
    )
    for key, value in model.parameters().items():
        config.parameters[key].string_value = value
    steps = config.ensemble_scheduling.step
    if model.layout == JOINED:
        steps.add(
            model_name=model.encoder,
            model_version=-1,
            input_map={name: name for name in model.inputs},
            output_map={name: name for name in ("logits", "token_count")},
        )
        return config
    steps.add(
        model_name=model.tokenizer,
        model_version=-1,
        input_map={name: name for name in model.inputs},
        output_map={name: name for name in (*model.encoder_inputs, "token_count")},
    )
    steps.add(
        model_name=model.encoder,
        model_version=-1,
        input_map={name: name for name in model.encoder_inputs},
        output_map={"logits": "logits"},
    )
    return config


def as_text(config: pb.ModelConfig) -> str:
    """The content of a ``config.pbtxt``."""
    return str(text_format.MessageToString(config))


def _cpu_encoder(model: ServedModel) -> pb.ModelConfig:
    """ONNX Runtime inside the python backend; texts of unequal length may meet in a batch."""
    config = _encoder(model, ragged=True)
    config.backend = "python"
    config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_CPU, count=model.instances)
    _warm_up(config, model, batches=[1])
    return config


def _cuda_encoder(model: ServedModel) -> pb.ModelConfig:
    """The same on a GPU: Triton starts ``instances`` python processes for each that it sees."""
    config = _encoder(model, ragged=True)
    config.backend = "python"
    config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_GPU, count=model.instances)
    parameters = {
        "device": "cuda",
        "group_texts": model.group_texts,
        "group_tokens": model.group_tokens,
        "pad_multiple": PAD_MULTIPLE,
        "max_tokens": model.max_tokens,
    }
    for key, value in parameters.items():
        config.parameters[key].string_value = str(value)
    _warm_up(config, model, batches=[1])
    return config


def _onnxruntime_encoder(model: ServedModel) -> pb.ModelConfig:
    """Triton's own ONNX Runtime backend with the CUDA provider."""
    config = _encoder(model)
    config.backend = "onnxruntime"
    config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_GPU, count=model.instances)
    config.dynamic_batching.max_queue_delay_microseconds = QUEUE_DELAY_US
    config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="cuda")
    _warm_up(config, model, batches=[1, MAX_BATCH_SIZE])
    return config


def _plan_encoder(model: ServedModel) -> pb.ModelConfig:
    """A TensorRT plan with one profile for each bucket; INT64 inputs, which TensorRT knows since 10."""
    config = _encoder(model)
    config.platform = "tensorrt_plan"
    buckets = length_buckets(model.max_tokens)
    config.instance_group.add(
        kind=pb.ModelInstanceGroup.KIND_GPU,
        count=model.instances,
        profile=[str(index) for index in range(len(buckets))],
    )
    config.dynamic_batching.max_queue_delay_microseconds = QUEUE_DELAY_US
    # While one batch computes, the next is gathered and the last one's logits are copied out.
    config.optimization.eager_batching = True
    cuda = config.optimization.cuda
    cuda.output_copy_stream = True
    cuda.graphs = True
    for bucket in buckets:
        for size in GRAPH_BATCHES:
            # No graph_lower_bound: a graph for a larger shape would run on uninitialised memory.
            spec = cuda.graph_spec.add(batch_size=size)
            for name in model.encoder_inputs:
                spec.input[name].dim.append(bucket)
    _warm_up(config, model, batches=[1, MAX_BATCH_SIZE])
    return config


_ENCODERS = {
    "cpu": _cpu_encoder,
    "cuda": _cuda_encoder,
    "onnxruntime": _onnxruntime_encoder,
    "tensorrt": _plan_encoder,
}


def _encoder(model: ServedModel, *, ragged: bool = False) -> pb.ModelConfig:
    return _config(
        model.encoder,
        inputs=[_input(name, pb.TYPE_INT64, [-1], ragged=ragged) for name in model.encoder_inputs],
        outputs=[_output("logits", pb.TYPE_FP32, [len(model.labels)])],
    )


def _warm_up(config: pb.ModelConfig, model: ServedModel, batches: Iterable[int]) -> None:
    """Every bucket at every batch size; Triton repeats the one row of the file."""
    for batch in batches:
        for length in length_buckets(model.max_tokens):
            name = f"tokens_{length}" if batch == 1 else f"tokens_{length}_batch_{batch}"
            sample = config.model_warmup.add(name=name, batch_size=batch, count=1)
            for tensor in model.encoder_inputs:
                sample.inputs[tensor].CopyFrom(
                    pb.ModelWarmup.Input(
                        data_type=pb.TYPE_INT64, dims=[length], input_data_file=f"ones_{length}.bin"
                    )
                )


def _set_tokenizer(config: pb.ModelConfig, model: ServedModel) -> None:
    config.parameters["max_tokens"].string_value = str(model.max_tokens)
    config.parameters["pad_id"].string_value = str(model.pad_id)


def _warm_up_with_text(config: pb.ModelConfig, model: ServedModel, text: str) -> None:
    """A sample of the text in ``<text>.bin``; a query is short, so that there is room for its text."""
    sample = config.model_warmup.add(name=text, batch_size=1, count=1)
    for name in model.inputs:
        file = f"{text}.bin" if name == "TEXT" else "text.bin"
        sample.inputs[name].CopyFrom(
            pb.ModelWarmup.Input(data_type=pb.TYPE_STRING, dims=[1], input_data_file=file)
        )


def _texts(model: ServedModel) -> list[pb.ModelInput]:
    return [_input(name, pb.TYPE_STRING, [1]) for name in model.inputs]


def _answers(model: ServedModel) -> list[pb.ModelOutput]:
    return [
        _output("logits", pb.TYPE_FP32, [len(model.labels)]),
        _output("token_count", pb.TYPE_INT32, [1]),
    ]


def _config(
    name: str, *, inputs: Sequence[pb.ModelInput], outputs: Sequence[pb.ModelOutput]
) -> pb.ModelConfig:
    config = pb.ModelConfig(name=name, max_batch_size=MAX_BATCH_SIZE, input=inputs, output=outputs)
    config.dynamic_batching.SetInParent()
    return config


def _input(name: str, kind: int, dims: Sequence[int], *, ragged: bool = False) -> pb.ModelInput:
    return pb.ModelInput(name=name, data_type=kind, dims=dims, allow_ragged_batch=ragged)


def _output(name: str, kind: int, dims: Sequence[int]) -> pb.ModelOutput:
    return pb.ModelOutput(name=name, data_type=kind, dims=dims)
