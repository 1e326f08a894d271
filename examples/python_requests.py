"""Classify texts with requests: python python_requests.py ["a text" …]."""

import os
import sys

import requests

missing = [name for name in ("CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_API_TOKEN") if not os.environ.get(name)]
if missing:
    sys.exit(f"Set {' and '.join(missing)}: see README.md in this folder.")

BASE_URL = os.environ.get("CLOUDFLARE_BASE_URL", "https://api.cloudflare.com/client/v4")
ACCOUNT = os.environ["CLOUDFLARE_ACCOUNT_ID"]
MODEL = "@cf/huggingface/distilbert-sst-2-int8"

with requests.Session() as session:
    session.headers["Authorization"] = f"Bearer {os.environ['CLOUDFLARE_API_TOKEN']}"
    for text in sys.argv[1:] or ["This pizza is great!"]:
        try:
            answer = session.post(
                f"{BASE_URL}/accounts/{ACCOUNT}/ai/run/{MODEL}", json={"text": text}, timeout=60
            ).json()
        except requests.RequestException:
            sys.exit(f"No answer from {BASE_URL}. Is the server running? `make serve` starts one.")
        if not answer["success"]:
            sys.exit("\n".join(f"{error['code']}: {error['message']}" for error in answer["errors"]))
        scores = {entry["label"]: entry["score"] for entry in answer["result"]}
        print(f"{scores['POSITIVE']:.4f}  {text}")
