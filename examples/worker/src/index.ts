import { Ai } from '@cloudflare/ai'

export interface Env {
  AI: any;
}

export default {
  async fetch(request: Request, env: Env) {
    const ai = new Ai(env.AI);
    const response = await ai.run('@cf/huggingface/distilbert-sst-2-int8', {
        text: "This pizza is great!"
      }
    );
    return Response.json(response)
  },
};
