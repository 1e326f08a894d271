"""The documentation page's Python; base URL, account and token come from the environment."""

import os
from typing import Any

import requests

API_BASE_URL = f"{os.environ['API_BASE']}/accounts/{os.environ['ACCOUNT_ID']}/ai/run/"
headers = {"Authorization": f"Bearer {os.environ['API_TOKEN']}"}


def run(model: str, input: dict[str, str]) -> Any:
    response = requests.post(f"{API_BASE_URL}{model}", headers=headers, json=input)
    return response.json()


output = run("@cf/huggingface/distilbert-sst-2-int8", {"text": "This pizza is great!"})
print(output)
