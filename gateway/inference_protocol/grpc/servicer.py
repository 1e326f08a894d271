"""The methods of ``inference.GRPCInferenceService``.

`Front` calls each with the parsed message and the `Call`, whose token it has checked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import uuid4

from tritonclient.grpc import service_pb2, service_pb2_grpc

from gateway.domain.errors import MethodNotImplemented, NoSuchModel, NoSuchVersion
from gateway.inference_protocol import unsupported
from gateway.inference_protocol.grpc import protobuf
from gateway.inference_protocol.grpc.call import Call
from gateway.inference_protocol.grpc.protobuf import Message
from gateway.inference_protocol.infer import ModelInfer
from gateway.inference_protocol.models import ModelDirectory
from gateway.pipeline.deadline import RequestDeadline

Method = Callable[[object, Message, Call], Awaitable[Message]]


def _not_implemented(sentence: str) -> Method:
    async def refuse(self: object, request: Message, call: Call) -> Message:
        raise MethodNotImplemented(sentence)

    return refuse


class InferenceServicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers what clients of the protocol ask.

    Args:
        infer: answers requests for inference.
        models: describes the models.
        is_ready: whether requests would be served now.
    """

    def __init__(self, infer: ModelInfer, models: ModelDirectory, is_ready: Callable[[], bool]) -> None:
        self._infer = infer
        self._models = models
        self._is_ready = is_ready

    async def ServerLive(self, request: Message, call: Call) -> Message:
        """Answer true as long as the process can answer at all."""
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Message, call: Call) -> Message:
        """Tell whether requests would be served."""
        return service_pb2.ServerReadyResponse(ready=self._is_ready())

    async def ModelReady(self, request: Message, call: Call) -> Message:
        """Tell whether a model answers; one that does not exist is not ready."""
        try:
            model = self._models.find(request.name, request.version, call.record)
        except (NoSuchModel, NoSuchVersion):
            return service_pb2.ModelReadyResponse(ready=False)
        return service_pb2.ModelReadyResponse(ready=self._models.is_ready(model))

    async def ServerMetadata(self, request: Message, call: Call) -> Message:
        """Name the server, its version and its extensions."""
        return protobuf.server_metadata()

    async def ModelMetadata(self, request: Message, call: Call) -> Message:
        """Describe the inputs and outputs of a model."""
        model = self._models.find(request.name, request.version, call.record)
        return protobuf.model_metadata(self._models.describe(request.name, model))

    async def ModelConfig(self, request: Message, call: Call) -> Message:
        """Describe a model in the form of Triton's configuration."""
        model = self._models.find(request.name, request.version, call.record)
        return protobuf.model_config(self._models.describe(request.name, model))

    async def RepositoryIndex(self, request: Message, call: Call) -> Message:
        """List the models that are served."""
        return protobuf.repository_index(self._models.index(only_ready=request.ready))

    async def ModelInfer(self, request: Message, call: Call) -> Message:
        """Classify the texts of one request."""
        call.record.ai_request_id = str(uuid4())

        async def receive(deadline: RequestDeadline) -> Message:
            return request

        response = await self._infer(call.caller, receive, protobuf.infer_request)
        return protobuf.infer_response(response)

    async def ModelStreamInfer(self, request: Message, call: Call) -> Message:
        """Classify the texts of one request of a stream."""
        return protobuf.stream_response(await self.ModelInfer(request, call))

    SystemSharedMemoryStatus = SystemSharedMemoryRegister = SystemSharedMemoryUnregister = _not_implemented(
        unsupported.SHARED_MEMORY
    )
    CudaSharedMemoryStatus = CudaSharedMemoryRegister = CudaSharedMemoryUnregister = SystemSharedMemoryStatus
    RepositoryModelLoad = RepositoryModelUnload = _not_implemented(unsupported.MODEL_CONTROL)
    ModelStatistics = _not_implemented(unsupported.STATISTICS)
    TraceSetting = LogSettings = _not_implemented(unsupported.SETTINGS)
