import { env, exports } from "cloudflare:workers";
import { expect, it } from "vitest";

const MODEL = "@cf/huggingface/distilbert-sst-2-int8";
const INPUTS = { text: "This pizza is great!" };

it("classifies in the test itself", async () => {
  const [negative, positive] = await env.AI.run(MODEL, INPUTS);
  expect(negative.label).toBe("NEGATIVE");
  expect(positive.score).toBeGreaterThan(0.9);
});

it.each(["worker", "object"])("classifies in the %s", async (within) => {
  const body = JSON.stringify({ within, calls: [{ run: [MODEL, INPUTS] }] });
  const response = await exports.default.fetch("http://worker/", { method: "POST", body });
  const [{ result }] = await response.json();
  expect(result[1].score).toBeGreaterThan(0.9);
});

it("throws what the binding throws", async () => {
  await expect(env.AI.run(MODEL, {})).rejects.toMatchObject({
    name: "AiError",
    message: "5006: Error: required properties at '/' are 'text'",
  });
});
