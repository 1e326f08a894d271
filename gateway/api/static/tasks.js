"use strict";

// What a request to a model looks like, and what is shown of its answer, by the model's task.

const TASKS = {
  classification: {
    verb: "Classify",
    doing: "Classifying …",
    label: "Texts, one on each line",
    one: "text",
    several: "texts",
    example: ["This pizza is great!"],
    requests: ({ texts }) => texts.map((text) => ({ text })),
    /** Brings the results of all requests into one shape: a list of {text, bars} or {text, error}. */
    shown: (results, { texts }) => results.map(({ result, error }, place) => {
      if (error) {
        return { text: texts[place], error };
      }
      const scores = Array.isArray(result) ? result : result.items;
      const best = Math.max(...scores.map(({ score }) => score));
      return { text: texts[place], bars: scores.map((each) => ({ ...each, best: each.score === best })) };
    }),
  },
  rerank: {
    verb: "Rerank",
    doing: "Reranking …",
    label: "Contexts, one on each line",
    one: "context",
    several: "contexts",
    example: ["Bread is baked in an oven.", "The sea was calm."],
    requests: ({ query, texts, top }) => [
      { query, contexts: texts.map((text) => ({ text })), ...(top === null ? {} : { top_k: top }) },
    ],
    shown: ([{ result, error }], { query, texts }) => error
      ? [{ text: query, error }]
      : result.response.map(({ id, score }, place) => ({
        text: texts[id],
        bars: [{ label: `context ${id}`, score, best: place === 0 }],
      })),
  },
};

/** The task of a model whose JSON Schemas these are. */
function taskOf(schemas) {
  return schemas.input.required?.includes("contexts") ? "rerank" : "classification";
}
