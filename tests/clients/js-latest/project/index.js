// A Worker that makes the calls in a request, itself or inside a Durable Object, and answers with what it saw.
import { DurableObject } from "cloudflare:workers";
import { report } from "./calls.js";

export class Reporter extends DurableObject {
  report(calls) {
    return report(this.env.AI, calls);
  }
}

export default {
  async fetch(request, env) {
    const { within = "worker", binding = "AI", calls } = await request.clone().json();
    if (within === "year-old") return env.YEAR_OLD.fetch(request);
    const object = within === "object" ? env.REPORTER.getByName("only") : null;
    return Response.json(await (object ? object.report(calls) : report(env[binding], calls)));
  },
};
