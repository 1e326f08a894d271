// The same without a package: the binding itself runs models.
export interface Env {
  AI: any;
}

export default {
  async fetch(request: Request, env: Env) {
    const response = await env.AI.run('@cf/huggingface/distilbert-sst-2-int8', {
      text: "This pizza is great!"
    });
    return Response.json(response)
  },
};
