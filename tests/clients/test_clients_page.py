"""Everything that docs/clients.md has to paste, before the real gateway and Triton."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy
import pytest
from google.protobuf import json_format
from tritonclient.grpc import service_pb2

from embedded.server import RESTRICTED_KEY, TritonServer
from tests.support.clients.checks import MODEL, TEXT
from tests.support.deploy.compose_triton import free_port
from tests.support.servers import ACCOUNT, TOKEN, running

WITHOUT_NODE = True
PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
_ARGUMENTS = """grpcurl() { printf '%s\\0' "$@"; }
"""
"""Prints the arguments of grpcurl in place of running it."""


@dataclass(frozen=True)
class Ports:
    """Addresses of one gateway, ``127.0.0.1:PORT``."""

    http: str
    grpc: str

    def put_into(self, text: str) -> str:
        """Replace the documented addresses and the token."""
        replaced = text.replace("127.0.0.1:8787", self.http).replace("127.0.0.1:8001", self.grpc)
        return replaced.replace("YOUR_TOKEN", TOKEN)


@pytest.fixture(scope="module")
def ports(real_triton: TritonServer) -> Iterator[Ports]:
    port = free_port()
    settings = {
        "GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN}",
        "GATEWAY_TRITON_METADATA_KEY": f"{RESTRICTED_KEY}={real_triton.secret}",
        "GATEWAY_GRPC_PORT": str(port),
    }
    with running("gateway", "--port", "0", "--triton-url", real_triton.address, **settings) as program:
        yield Ports(program.url.removeprefix("http://"), f"127.0.0.1:{port}")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.S | re.M)


def command(program: str) -> str:
    """The only command of the page that starts with this program."""
    (console,) = blocks("console")
    (found,) = [one for one in re.split(r"^\$ ", console, flags=re.M) if one.startswith(program)]
    return found


def shell(script: str) -> str:
    done = subprocess.run(
        ["bash", "-euc", script],
        env={"PATH": "/usr/bin:/bin", "TOKEN": TOKEN},
        capture_output=True,
        check=True,
    )
    return done.stdout.decode()


def scores(ports: Ports) -> list[float]:
    """The scores of TEXT by the API, rounded to FP32."""
    answer = httpx.post(
        f"http://{ports.http}/client/v4/accounts/{ACCOUNT}/ai/run/{MODEL}",
        json={"text": TEXT},
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    return [float(numpy.float32(entry["score"])) for entry in answer.json()["result"]]


def test_the_python_example_prints_labels_and_the_scores_of_the_api(ports: Ports) -> None:
    program = ports.put_into(blocks("python")[0])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    good, bad = done.stdout.splitlines()
    assert good == f"{TEXT} POSITIVE {numpy.array(scores(ports), numpy.float32)}"
    assert bad.startswith("The waiter was rude. NEGATIVE [")


def test_the_curl_command_gets_the_scores_of_the_api_rounded_to_fp32(ports: Ports) -> None:
    answer = json.loads(shell(ports.put_into(command("curl"))))
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert set(outputs) == {"logits", "probabilities", "label", "token_count"}
    assert outputs["label"]["data"] == ["POSITIVE"]
    assert outputs["probabilities"]["data"] == scores(ports)


def test_the_grpcurl_command_asks_what_the_gateway_answers(ports: Ports) -> None:
    *options, address, method = (
        shell(_ARGUMENTS + ports.put_into(command("grpcurl"))).rstrip("\0").split("\0")
    )
    assert (address, options[:2]) == (ports.grpc, ["-plaintext", "-H"])
    name, _, value = options[2].partition(": ")
    request = json_format.Parse(options[4], service_pb2.ModelInferRequest())
    with grpc.insecure_channel(address) as channel:
        call: grpc.UnaryUnaryMultiCallable[Any, Any] = channel.unary_unary(
            f"/{method}",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        answer = call(request, metadata=((name, value),), timeout=10)
    assert answer.model_name == MODEL
    assert b"POSITIVE" in answer.raw_output_contents[2]


def test_the_service_configuration_is_one_that_grpc_accepts(ports: Ports) -> None:
    scope: dict[str, Any] = {}
    exec(ports.put_into(blocks("python")[1]), scope)
    with scope["channel"] as channel:
        live: grpc.UnaryUnaryMultiCallable[Any, Any] = channel.unary_unary(
            "/inference.GRPCInferenceService/ServerLive",
            request_serializer=service_pb2.ServerLiveRequest.SerializeToString,
            response_deserializer=service_pb2.ServerLiveResponse.FromString,
        )
        assert live(service_pb2.ServerLiveRequest(), timeout=10).live
