// What a request to a model looks like, and what is shown of its answer, by the model's task.

const MOST = 100; // inputs of one request, where the model's schema does not say

/**
 * Of each task: words of the form; `most`, the inputs that one request may have; `requests` for some texts;
 * `outcomes` of their answers, one for each text: {scores: [{label, score}]}, {error}, or null if the answer
 * leaves the text out; `order`, the places of the outcomes in the order in which they are listed.
 */
export const TASKS = {
  classification: {
    verb: "Classify",
    doing: "Classifying …",
    done: "classified",
    label: "Texts, a blank line between two",
    one: "text",
    several: "texts",
    example: ["This pizza is great!"],
    most: (input) => input?.["x-limits"]?.max_requests ?? MOST,
    requests: ({ texts }) => texts.map((text) => ({ text })),
    outcomes: (answers) => answers.map(({ result, error }) => error
      ? { error }
      : { scores: Array.isArray(result) ? result : result.items }),
    order: (outcomes) => outcomes.map((_, place) => place),
  },
  rerank: {
    verb: "Rerank",
    doing: "Reranking …",
    done: "ranked",
    label: "Contexts, a blank line between two",
    one: "context",
    several: "contexts",
    example: ["Bread is baked in an oven.", "The sea was calm."],
    most: (input) => input?.properties?.contexts?.maxItems ?? MOST,
    requests: ({ query, texts, top }) => [
      { query, contexts: texts.map((text) => ({ text })), ...(top === null ? {} : { top_k: top }) },
    ],
    outcomes: ([{ result, error }], { texts }) => {
      if (error) {
        throw error; // none of the contexts has a score
      }
      const found = texts.map(() => null);
      for (const { id, score } of result.response) {
        found[id] = { scores: [{ label: null, score }] };
      }
      return found;
    },
    /** Best first. A score belongs to a pair alone, so those of several requests can be compared. */
    order: (outcomes, { top }) => {
      const scored = outcomes.map((_, place) => place).filter((place) => outcomes[place]?.scores);
      const failed = outcomes.map((_, place) => place).filter((place) => outcomes[place]?.error);
      scored.sort((a, b) => outcomes[b].scores[0].score - outcomes[a].scores[0].score || a - b);
      return [...scored.slice(0, top ?? undefined), ...failed];
    },
  },
};

/** The task of a model whose JSON Schemas these are. */
export function taskOf(schemas) {
  return schemas.input.required?.includes("contexts") ? "rerank" : "classification";
}
