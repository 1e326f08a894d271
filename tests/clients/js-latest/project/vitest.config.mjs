import { readFileSync } from "node:fs";
import { parseEnv } from "node:util";
import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";

const shim = {
  name: "tritonflare-ai",
  modules: true,
  scriptPath: "shim/src/index.js",
  compatibilityDate: "2026-05-01",
  bindings: {
    CLOUDFLARE_API_BASE_URL: "http://127.0.0.1:8787/client/v4",
    CLOUDFLARE_ACCOUNT_ID: "0123456789abcdef0123456789abcdef",
    ...parseEnv(readFileSync("shim/.dev.vars", "utf8")),
  },
};

export default defineConfig({
  // A refused call of another Worker counts as unhandled even where a test handles it (workers-sdk, issue 14736).
  test: { onUnhandledError: (error) => !error.remote },
  plugins: [cloudflareTest({ wrangler: { configPath: "wrangler.jsonc" }, miniflare: { workers: [shim] } })],
});
