// Any gateway, with a token in the environment variable TOKEN.
import { Miniflare } from "miniflare";
import { answers, bundle } from "./common.mjs";

const { TOKEN } = process.env;
if (!TOKEN) {
  console.error("Set TOKEN to an API token of the gateway: make serve prints one.");
  process.exit(1);
}
const gateway = new URL(process.env.GATEWAY ?? "http://127.0.0.1:8787");
await answers(gateway);
const worker = new Miniflare({
  workers: [
    {
      name: "main",
      modules: true,
      script: await bundle(process.argv[2] ?? "src/index.ts"),
      compatibilityDate: "2025-06-01",
      wrappedBindings: { AI: { scriptName: "ai" } },
    },
    {
      // No compatibilityDate here: miniflare refuses one on a wrapped binding.
      name: "ai",
      modules: [
        {
          type: "ESModule",
          path: "index.mjs",
          contents:
            "import { Ai } from 'cloudflare-internal:ai-api'; export default (env) => new Ai(env.GATEWAY);",
        },
      ],
      serviceBindings: {
        GATEWAY: {
          external: {
            address: gateway.host,
            http: {
              injectRequestHeaders: [{ name: "Authorization", value: `Bearer ${TOKEN}` }],
            },
          },
        },
      },
    },
  ],
});
const response = await worker.dispatchFetch("http://worker/");
console.log(await response.text());
await worker.dispose();
process.exit(response.ok ? 0 : 1);
