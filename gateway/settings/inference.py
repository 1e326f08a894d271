"""How Triton is reached, called and watched."""

from __future__ import annotations

import re

from pydantic import BaseModel, Field, SecretStr, field_validator

from gateway.addresses import targets
from gateway.settings.kinds import Bytes, Seconds

_SHARE = re.compile(r"[01]|[01]?\.\d{1,9}|1\.0+", re.ASCII)


class InferenceSettings(BaseModel):
    """How Triton is reached, called and watched."""

    triton_url: str = Field(
        "127.0.0.1:8001",
        min_length=1,
        description="gRPC target of Triton: host:port. For several Tritons dns:///name:port (all addresses "
        "of the name) or ipv4:10.0.0.1:8001,10.0.0.2:8001. A call goes to the address with the fewest calls "
        "under way; if that address cannot take it, it goes to the next.",
    )
    triton_metadata_key: SecretStr | None = Field(
        None,
        description="name=secret of Triton's --grpc-restricted-protocol. Every call sends it as the "
        "metadata triton-grpc-protocol-<name>.",
    )
    triton_max_message_bytes: Bytes = Field(
        64 * 1024 * 1024, description="Largest gRPC message sent to or accepted from Triton."
    )
    triton_control_timeout_s: Seconds = Field(
        2.0, description="Deadline of each discovery call (repository index, model configuration)."
    )
    call_slots: int = Field(
        3,
        gt=0,
        description="Calls to Triton under way at once for each model and worker. Texts that find no free "
        "slot leave together in the next call. Long texts (more than 4 bytes for each token that the model "
        "reads) have one slot fewer of their own, texts above 16 KiB two fewer, at least one each: short "
        "texts do not wait for them.",
    )
    max_call_texts: int = Field(
        64, gt=0, description="Most texts in one call to Triton; 1 sends each text alone."
    )
    call_length_ratio: float = Field(
        4.0,
        ge=1,
        allow_inf_nan=False,
        description="Texts in one call are at most this many times longer or shorter, in bytes, than the "
        "oldest of them: a short text does not wait for a long one.",
    )
    max_queue_s: Seconds = Field(
        2.0,
        description="When the oldest queued text has waited this long for a call, new texts get 429, code "
        "3040, at once instead of a timeout later.",
    )
    cache_bytes: int = Field(
        0,
        ge=0,
        description="Memory for the answer cache, which answers repeated texts without computing them "
        "again; 0 turns it off. Texts themselves are never kept.",
    )
    aliases: str = Field(
        "",
        description="Other names of models, alias=model with commas between: "
        "@cf/mine/mood=@cf/huggingface/distilbert-sst-2-int8. Metrics and lists have the model's own name.",
    )
    shadow: str = Field(
        "",
        description="A second model reads a share of the texts of a classifier after they were answered, "
        "model=second:share with commas between: @cf/mine/mood=@cf/mine/mood-new:0.1. Callers never wait for "
        "it; `tritonflare shadow` tells how the answers differ. Each process keeps up to 64 texts, 256 KiB, "
        "in memory for a few seconds until then.",
    )
    refresh_interval_s: Seconds = Field(
        5.0, description="Pause between two checks of Triton's models, each with canary inferences."
    )
    retry_interval_s: Seconds = Field(0.5, description="Pause between two checks while a model is not ready.")
    canary_timeout_s: Seconds = Field(
        2.0, description="Time that a check waits for a canary. A later answer counts when it arrives."
    )
    canary_max_age_s: Seconds = Field(
        20.0,
        description="A model is not ready when a canary has waited this long for an answer and no other "
        "text got one meanwhile.",
    )
    canaries_per_s: float = Field(
        20.0,
        gt=0,
        allow_inf_nan=False,
        description="Most canaries a second for each worker. With more models than this times "
        "GATEWAY_REFRESH_INTERVAL_S, canaries rotate, longest unanswered models first.",
    )

    @field_validator("aliases")
    @classmethod
    def _check_aliases(cls, text: str) -> str:
        read_aliases(text)
        return text

    @field_validator("shadow")
    @classmethod
    def _check_shadow(cls, text: str) -> str:
        read_shadows(text)
        return text

    @field_validator("triton_url")
    @classmethod
    def _check_target(cls, url: str) -> str:
        try:
            targets(url)
        except ValueError as exc:
            raise ValueError(
                "must be host:port, dns:///name:port, or several addresses with commas between"
            ) from exc
        return url


def read_aliases(text: str) -> dict[str, str]:
    """Split ``alias=model,alias=model``.

    Raises:
        ValueError: a part is not of this form, or an alias comes twice.
    """
    aliases: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        alias, _, name = map(str.strip, part.partition("="))
        if not (alias and name and "=" not in name and part.isprintable()):
            raise ValueError("must be of the form alias=model, with commas between")
        if alias in aliases:
            raise ValueError("has an alias twice")
        aliases[alias] = name
    return aliases


def read_shadows(text: str) -> dict[str, tuple[str, float]]:
    """Split ``model=second:share,…``; return second model and share (above 0, at most 1) by model.

    Raises:
        ValueError: a part is not of this form, or a model comes twice.
    """
    shadows: dict[str, tuple[str, float]] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        model, _, rest = map(str.strip, part.partition("="))
        second, _, share = map(str.strip, rest.rpartition(":"))
        if not (model and second and "=" not in rest and part.isprintable() and _SHARE.fullmatch(share)):
            raise ValueError("must be of the form model=second:0.1, with commas between")
        if not 0 < float(share) <= 1:
            raise ValueError("has a share that is not above 0 and at most 1")
        if model == second:
            raise ValueError("has a model that is its own second one")
        if model in shadows:
            raise ValueError("has a model twice")
        shadows[model] = second, float(share)
    return shadows
