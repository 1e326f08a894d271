// Classify texts with the cloudflare package: node node_sdk.mjs ["a text" …]
// The client itself reads CLOUDFLARE_BASE_URL and CLOUDFLARE_API_TOKEN, and repeats what may succeed later.
import Cloudflare from "cloudflare";

const missing = ["CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_API_TOKEN"].filter((name) => !process.env[name]);
if (missing.length) {
  console.error(`Set ${missing.join(" and ")}: see README.md in this folder.`);
  process.exit(1);
}
const MODEL = "@cf/huggingface/distilbert-sst-2-int8";
const client = new Cloudflare();

const given = process.argv.slice(2);
for (const text of given.length ? given : ["This pizza is great!"]) {
  try {
    const result = await client.ai.run(MODEL, { account_id: process.env.CLOUDFLARE_ACCOUNT_ID, text });
    const { score } = result.find((entry) => entry.label === "POSITIVE");
    console.log(`${score.toFixed(4)}  ${text}`);
  } catch (error) {
    if (error instanceof Cloudflare.APIConnectionError) {
      console.error(`No answer from ${client.baseURL}. Is the server running? \`make serve\` starts one.`);
      process.exit(1);
    }
    if (!(error instanceof Cloudflare.APIError)) throw error;
    for (const { code, message } of error.errors) console.error(`${code}: ${message}`);
    process.exit(1);
  }
}
