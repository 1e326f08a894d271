// Classify texts with fetch, in node 18 or newer: node fetch.mjs ["a text" …]
const missing = ["CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_API_TOKEN"].filter((name) => !process.env[name]);
if (missing.length) {
  console.error(`Set ${missing.join(" and ")}: see README.md in this folder.`);
  process.exit(1);
}
const {
  CLOUDFLARE_BASE_URL = "https://api.cloudflare.com/client/v4",
  CLOUDFLARE_ACCOUNT_ID,
  CLOUDFLARE_API_TOKEN,
} = process.env;
const MODEL = "@cf/huggingface/distilbert-sst-2-int8";

const given = process.argv.slice(2);
for (const text of given.length ? given : ["This pizza is great!"]) {
  const response = await fetch(`${CLOUDFLARE_BASE_URL}/accounts/${CLOUDFLARE_ACCOUNT_ID}/ai/run/${MODEL}`, {
    method: "POST",
    headers: { Authorization: `Bearer ${CLOUDFLARE_API_TOKEN}` },
    body: JSON.stringify({ text }),
  }).catch(() => {
    console.error(`No answer from ${CLOUDFLARE_BASE_URL}. Is the server running? \`make serve\` starts one.`);
    process.exit(1);
  });
  const { success, errors, result } = await response.json();
  if (!success) {
    for (const { code, message } of errors) console.error(`${code}: ${message}`);
    process.exit(1);
  }
  const { score } = result.find((entry) => entry.label === "POSITIVE");
  console.log(`${score.toFixed(4)}  ${text}`);
}
