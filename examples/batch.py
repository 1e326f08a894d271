"""Classify several texts in one request: python batch.py ["a text" …].

The first answer is a receipt, and the program asks for the result until it is there. A gateway without a
store of batches answers at once with what a finished batch holds.
"""

import os
import sys
import time

import requests

missing = [name for name in ("CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_API_TOKEN") if not os.environ.get(name)]
if missing:
    sys.exit(f"Set {' and '.join(missing)}: see README.md in this folder.")

BASE_URL = os.environ.get("CLOUDFLARE_BASE_URL", "https://api.cloudflare.com/client/v4")
MODEL = "@cf/huggingface/distilbert-sst-2-int8"
URL = f"{BASE_URL}/accounts/{os.environ['CLOUDFLARE_ACCOUNT_ID']}/ai/run/{MODEL}?queueRequest=true"

texts = sys.argv[1:] or ["This pizza is great!", "The waiter was rude."]
body = {"requests": [{"text": text, "external_reference": str(n)} for n, text in enumerate(texts)]}
with requests.Session() as session:
    session.headers["Authorization"] = f"Bearer {os.environ['CLOUDFLARE_API_TOKEN']}"
    while True:
        try:
            answer = session.post(URL, json=body, timeout=60).json()
        except requests.RequestException:
            sys.exit(f"No answer from {BASE_URL}. Is the server running? `make serve` starts one.")
        if not answer["success"]:
            sys.exit("\n".join(f"{error['code']}: {error['message']}" for error in answer["errors"]))
        if "responses" in answer["result"]:
            break
        body = {"request_id": answer["result"]["request_id"]}
        time.sleep(2)

failed = False
for item in answer["result"]["responses"]:
    text = texts[item["id"]]
    if item["success"]:
        scores = {entry["label"]: entry["score"] for entry in item["result"]}
        print(f"{scores['POSITIVE']:.4f}  {text}")
    else:
        failed = True
        print(f"failed  {text!r}: {item['errors'][0]['message']}")
sys.exit(failed)
