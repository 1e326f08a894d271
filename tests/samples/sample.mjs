// The documentation page's JavaScript; base URL, account and token come from the environment.
const { API_BASE, ACCOUNT_ID, API_TOKEN } = process.env;

async function run(model, input) {
  const response = await fetch(
    `${API_BASE}/accounts/${ACCOUNT_ID}/ai/run/${model}`,
    {
      headers: { Authorization: `Bearer ${API_TOKEN}` },
      method: "POST",
      body: JSON.stringify(input),
    }
  );
  const result = await response.json();
  return result;
}

run("@cf/huggingface/distilbert-sst-2-int8", { text: "This pizza is great!" }).then((response) => {
  console.log(JSON.stringify(response));
});
