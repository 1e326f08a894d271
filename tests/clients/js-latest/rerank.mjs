// Ranks documents with workers-ai-provider and the AI SDK; its fetch option leads it to the gateway.
import { rerank } from "ai";
import { text } from "node:stream/consumers";
import { createWorkersAI } from "workers-ai-provider";

const { gateway, token, account, calls } = JSON.parse(await text(process.stdin));
const CLOUDFLARE = /^https:\/\/(api|gateway\.ai)\.cloudflare\.com(?=\/)/;
const toGateway = (url, init) => fetch(url.replace(CLOUDFLARE, gateway), init);

const answers = [];
for (const { id, model, ...given } of calls) {
  const requests = [];
  const provider = createWorkersAI({
    accountId: account,
    apiKey: token,
    ...(id && { gateway: { id, skipCache: true } }),
    fetch(url, init) {
      requests.push({ url, headers: init.headers, body: JSON.parse(init.body) });
      return toGateway(url, init);
    },
  });
  try {
    const { ranking } = await rerank({ model: provider.reranking(model), maxRetries: 0, ...given });
    answers.push({ ranking, requests });
  } catch (error) {
    answers.push({ error: { name: error.name, message: error.message, status: error.statusCode }, requests });
  }
}
console.log(JSON.stringify(answers));
