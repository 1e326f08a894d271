// A Worker that does what the request says and tells all that the client library shows of it.
import { Ai } from "@cloudflare/ai";

export default {
  async fetch(request, env) {
    const { native, settings, models, run } = await request.json();
    const ai = native ? env.AI : new Ai(env.AI, settings);
    const seen = {};
    try {
      const result = models ? await env.AI.models(models) : await ai.run(...run);
      if (result instanceof Response) {
        seen.raw = { status: result.status, body: await result.text() };
      } else {
        seen.result = result;
      }
    } catch (error) {
      seen.error = { name: error.name, message: error.message };
    }
    seen.lastRequestId = ai.lastRequestId;
    seen.logs = ai.getLogs?.();
    return Response.json(seen);
  },
};
