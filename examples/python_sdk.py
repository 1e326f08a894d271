"""Classify texts with the cloudflare package: python python_sdk.py ["a text" …].

The client itself reads CLOUDFLARE_BASE_URL and CLOUDFLARE_API_TOKEN, and repeats what may succeed later.
"""

import os
import sys

import cloudflare

missing = [name for name in ("CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_API_TOKEN") if not os.environ.get(name)]
if missing:
    sys.exit(f"Set {' and '.join(missing)}: see README.md in this folder.")

ACCOUNT = os.environ["CLOUDFLARE_ACCOUNT_ID"]
MODEL = "@cf/huggingface/distilbert-sst-2-int8"

with cloudflare.Cloudflare() as client:
    for text in sys.argv[1:] or ["This pizza is great!"]:
        try:
            result = client.ai.run(MODEL, account_id=ACCOUNT, text=text)
        except cloudflare.APIStatusError as error:
            sys.exit("\n".join(f"{each.code}: {each.message}" for each in error.errors))
        except cloudflare.APIConnectionError:
            sys.exit(f"No answer from {client.base_url}. Is the server running? `make serve` starts one.")
        scores = {entry.label: entry.score for entry in result}
        print(f"{scores['POSITIVE']:.4f}  {text}")
