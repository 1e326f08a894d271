import { report } from "./calls.js";

export default {
  async fetch(request, env) {
    const { calls } = await request.json();
    return Response.json(await report(env.AI, calls));
  },
};
