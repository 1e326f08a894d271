"""Classify texts over HTTP with the Open Inference Protocol: python http_v2.py ["a text" …]."""

import os
import sys

import requests

if not os.environ.get("TOKEN"):
    sys.exit("Set TOKEN: see README.md in this folder.")

URL = os.environ.get("HTTP_URL", "http://127.0.0.1:8787")
MODEL = "@cf/huggingface/distilbert-sst-2-int8".replace("/", "--")

texts = sys.argv[1:] or ["This pizza is great!"]
body = {
    "inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [len(texts)], "data": texts}],
    "outputs": [{"name": "probabilities"}],
}
headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
try:
    response = requests.post(f"{URL}/v2/models/{MODEL}/infer", json=body, headers=headers, timeout=60)
except requests.RequestException:
    sys.exit(f"No answer from {URL}. Is the server running? `make serve` starts one.")
if not response.ok:
    sys.exit(f"{response.status_code}: {response.json()['error']}")
(output,) = response.json()["outputs"]
# NEGATIVE and POSITIVE of one text after the other.
for text, positive in zip(texts, output["data"][1::2], strict=True):
    print(f"{positive:.4f}  {text}")
