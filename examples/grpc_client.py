"""Classify texts over gRPC, in one request: python grpc_client.py ["a text" …]."""

import os
import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

if not os.environ.get("TOKEN"):
    sys.exit("Set TOKEN: see README.md in this folder.")

ADDRESS = os.environ.get("GRPC_ADDRESS", "127.0.0.1:8001")
HEADERS = {"authorization": f"Bearer {os.environ['TOKEN']}"}
MODEL = "@cf/huggingface/distilbert-sst-2-int8"

texts = sys.argv[1:] or ["This pizza is great!"]
data = np.array([[text.encode()] for text in texts], dtype=np.object_)
text_input = triton.InferInput("TEXT", data.shape, "BYTES")
text_input.set_data_from_numpy(data)
with triton.InferenceServerClient(ADDRESS) as client:
    try:
        result = client.infer(MODEL, [text_input], headers=HEADERS)
    except InferenceServerException as error:
        sys.exit(f"{error.status()}: {error.message()} (server: {ADDRESS}; `make serve` starts one)")
# One row for each text; the columns are NEGATIVE and POSITIVE.
for text, (_, positive) in zip(texts, result.as_numpy("probabilities"), strict=True):
    print(f"{positive:.4f}  {text}")
