// Runs report.mjs in miniflare with the options on standard input and prints its answers as JSON.
import { build } from "esbuild";
import { Miniflare } from "miniflare";
import { text } from "node:stream/consumers";

const { ai, way, gateway, token, calls } = JSON.parse(await text(process.stdin));

const { outputFiles } = await build({
  entryPoints: ["report.mjs"],
  alias: { "@cloudflare/ai": ai },
  bundle: true,
  format: "esm",
  write: false,
});
const main = {
  modules: true,
  script: outputFiles[0].text,
  compatibilityDate: "2025-06-01",
};
const headers = token === null ? [] : [{ name: "Authorization", value: `Bearer ${token}` }];
const ways = {
  connection: () => ({ ...main, ai: { binding: "AI", remoteProxyConnectionString: new URL(gateway) } }),
  wrapped: () => ({
    workers: [
      { ...main, name: "main", wrappedBindings: { AI: { scriptName: "ai" } } },
      {
        name: "ai",
        modules: [
          {
            type: "ESModule",
            path: "index.mjs",
            contents: "import { Ai } from 'cloudflare-internal:ai-api'; export default (env) => new Ai(env.GATEWAY);",
          },
        ],
        serviceBindings: {
          GATEWAY: { external: { address: new URL(gateway).host, http: { injectRequestHeaders: headers } } },
        },
      },
    ],
  }),
};
const miniflare = new Miniflare(ways[way]());
const answers = [];
for (const call of calls) {
  const response = await miniflare.dispatchFetch("http://worker/", { method: "POST", body: JSON.stringify(call) });
  answers.push(response.ok ? await response.json() : { failed: await response.text() });
}
await miniflare.dispose();
console.log(JSON.stringify(answers));
