// The gateway was started with GATEWAY_BINDING_WITHOUT_TOKEN=true on this machine.
import { Miniflare } from "miniflare";
import { bundle } from "./bundle.mjs";

const worker = new Miniflare({
  modules: true,
  script: await bundle(process.argv[2] ?? "src/index.ts"),
  compatibilityDate: "2025-06-01",
  ai: {
    binding: "AI",
    remoteProxyConnectionString: new URL(process.env.GATEWAY ?? "http://127.0.0.1:8787"),
  },
});
const response = await worker.dispatchFetch("http://worker/");
console.log(await response.text());
await worker.dispose();
