// Runs a Worker in miniflare 5 with options of miniflare 4: its AI plugin, and the gateway in Cloudflare's place.
import { convertV4MiniflareOptions, Miniflare } from "miniflare";
import { text } from "node:stream/consumers";

const { gateway, calls } = JSON.parse(await text(process.stdin));
const options = {
  modules: ["year-old.js", "calls.js"].map((name) => ({ type: "ESModule", path: `project/${name}` })),
  compatibilityDate: "2025-06-01",
  ai: { binding: "AI", remoteProxyConnectionString: new URL(gateway) },
};
const miniflare = new Miniflare(convertV4MiniflareOptions(options));
const response = await miniflare.dispatchFetch("http://worker/", { method: "POST", body: JSON.stringify({ calls }) });
console.log(await response.text());
await miniflare.dispose();
