// The same request from code. The page shows no token here, so that nobody copies theirs into a file.

const PLACEHOLDER = "YOUR_TOKEN";
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const LATER = "Later, until there are responses: the same URL with {\"request_id\": \"…\"} of this answer.";

export const SNIPPETS = {
  curl: ({ url, body, isQueued }) => [
    `curl ${quoted(url)} \\`,
    `  -H "Authorization: Bearer ${PLACEHOLDER}" \\`,
    `  -d ${quoted(JSON.stringify(body))}`,
    ...(isQueued ? [`# ${LATER}`] : []),
  ],
  python: ({ url, body, isQueued }) => [
    "import requests",
    "",
    "answer = requests.post(",
    `    ${JSON.stringify(url)},`,
    `    headers={"Authorization": "Bearer ${PLACEHOLDER}"},`,
    `    json=${JSON.stringify(body)},`,
    ")",
    'print(answer.json()["result"])',
    ...(isQueued ? [`# ${LATER}`] : []),
  ],
  javascript: ({ url, body, isQueued }) => [
    `const answer = await fetch(${JSON.stringify(url)}, {`,
    '  method: "POST",',
    `  headers: { Authorization: "Bearer ${PLACEHOLDER}" },`,
    `  body: JSON.stringify(${JSON.stringify(body)}),`,
    "});",
    "console.log((await answer.json()).result);",
    ...(isQueued ? [`// ${LATER}`] : []),
  ],
  worker: ({ body, model, texts, isRanking, isQueued }) => [
    "// wrangler.jsonc: \"services\": [{ \"binding\": \"AI\", \"service\": \"tritonflare-ai\" }] (examples/shim)",
    "export default {",
    "  async fetch(request, env) {",
    ...(isQueued
      ? batchInWorker(body, model)
      : isRanking ? rankingInWorker(body, model) : textsInWorker(texts, model)),
    "  },",
    "};",
  ],
  grpc: ({ model, texts, query, isRanking }) => [
    "# pip install 'tritonclient[grpc]'",
    "import numpy",
    "from tritonclient import grpc",
    "",
    "# The port is the server's GATEWAY_GRPC_PORT; with TLS, add ssl=True.",
    `client = grpc.InferenceServerClient("${location.hostname}:8001")`,
    `texts = numpy.array(${JSON.stringify(texts)}, dtype=object)`,
    'tensors = [grpc.InferInput("TEXT", texts.shape, "BYTES").set_data_from_numpy(texts)]',
    ...(isRanking
      ? [
        "# A query for each text: pairs of several queries may share a call.",
        `queries = numpy.full(texts.shape, ${JSON.stringify(query)}, dtype=object)`,
        'tensors.append(grpc.InferInput("QUERY", queries.shape, "BYTES").set_data_from_numpy(queries))',
      ]
      : []),
    "answer = client.infer(",
    `    ${JSON.stringify(model)},`,
    "    tensors,",
    `    headers={"authorization": "Bearer ${PLACEHOLDER}"},`,
    ")",
    'print(answer.as_numpy("probabilities"))',
  ],
};

function textsInWorker(texts, model) {
  return [
    `    const texts = ${JSON.stringify(texts)};`,
    "    const scores = await Promise.all(",
    `      texts.map((text) => env.AI.run(${JSON.stringify(model)}, { text })),`,
    "    );",
    "    return Response.json(scores);",
  ];
}

function rankingInWorker(body, model) {
  return [
    `    const input = ${JSON.stringify(body)};`,
    `    const { response } = await env.AI.run(${JSON.stringify(model)}, input);`,
    "    return Response.json(response);",
  ];
}

function batchInWorker(body, model) {
  return [
    `    const input = ${JSON.stringify(body)};`,
    `    const batch = await env.AI.run(${JSON.stringify(model)}, input, { queueRequest: true });`,
    "    // Later, perhaps in another request: ask until there are responses.",
    `    const answer = await env.AI.run(${JSON.stringify(model)}, { request_id: batch.request_id }, { queueRequest: true });`,
    "    return Response.json(answer);",
  ];
}
