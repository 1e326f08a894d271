#!/bin/sh
# Classify one text with curl (7.82 or newer).
set -eu
: "${CLOUDFLARE_ACCOUNT_ID:?is not set: see README.md in this folder}"
: "${CLOUDFLARE_API_TOKEN:?is not set: see README.md in this folder}"

curl --silent --show-error --fail-with-body \
  "${CLOUDFLARE_BASE_URL:-https://api.cloudflare.com/client/v4}/accounts/$CLOUDFLARE_ACCOUNT_ID/ai/run/@cf/huggingface/distilbert-sst-2-int8" \
  --header "Authorization: Bearer $CLOUDFLARE_API_TOKEN" \
  --json '{ "text": "This pizza is great!" }'
