// A Worker that does what the request says and tells all that the client library shows of it.
import { Ai } from "@cloudflare/ai";

// { id, <method of env.AI.gateway(id)>: arguments }
function ask(ai, { id, ...call }) {
  const [[method, given]] = Object.entries(call);
  return ai.gateway(id)[method](...given);
}

export default {
  async fetch(request, env) {
    const { native, settings, models, gateway, run } = await request.json();
    const ai = native ? env.AI : new Ai(env.AI, settings);
    const seen = {};
    try {
      const result = await (models ? env.AI.models(models) : gateway ? ask(env.AI, gateway) : ai.run(...run));
      if (result instanceof Response) {
        seen.raw = { status: result.status, body: await result.text(), step: result.headers.get("cf-aig-step") };
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
