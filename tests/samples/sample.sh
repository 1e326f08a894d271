# The documentation page's curl; base URL, account and token come from the environment.
curl --silent "$API_BASE/accounts/$ACCOUNT_ID/ai/run/@cf/huggingface/distilbert-sst-2-int8" \
-X POST \
-H "Authorization: Bearer $API_TOKEN" \
-d '{ "text": "This pizza is great!" }'
