// The gateway was started with GATEWAY_BINDING_WITHOUT_TOKEN=true on this machine.
import { Miniflare } from "miniflare";
import { answers, bundle } from "./common.mjs";

const gateway = new URL(process.env.GATEWAY ?? "http://127.0.0.1:8787");
await answers(gateway);
const worker = new Miniflare({
  modules: true,
  script: await bundle(process.argv[2] ?? "src/index.ts"),
  compatibilityDate: "2025-06-01",
  ai: {
    binding: "AI",
    remoteProxyConnectionString: gateway,
  },
});
const response = await worker.dispatchFetch("http://worker/");
console.log(await response.text());
await worker.dispose();
process.exit(response.ok ? 0 : 1);
