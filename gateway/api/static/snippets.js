"use strict";

// The same request from code. The page shows no token here, so that nobody copies theirs into a file.

const PLACEHOLDER = "YOUR_TOKEN";
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const SNIPPETS = {
  curl: (url, body) => [
    `curl ${quoted(url)} \\`,
    `  -H "Authorization: Bearer ${PLACEHOLDER}" \\`,
    `  -d ${quoted(JSON.stringify(body))}`,
  ],
  python: (url, body) => [
    "import requests",
    "",
    "answer = requests.post(",
    `    ${JSON.stringify(url)},`,
    `    headers={"Authorization": "Bearer ${PLACEHOLDER}"},`,
    `    json=${JSON.stringify(body)},`,
    ")",
    'print(answer.json()["result"])',
  ],
  javascript: (url, body) => [
    `const answer = await fetch(${JSON.stringify(url)}, {`,
    '  method: "POST",',
    `  headers: { Authorization: "Bearer ${PLACEHOLDER}" },`,
    `  body: JSON.stringify(${JSON.stringify(body)}),`,
    "});",
    "console.log((await answer.json()).result);",
  ],
  worker: (url, body, model, texts) => [
    "// wrangler.toml: [ai] binding = \"AI\"",
    "export default {",
    "  async fetch(request, env) {",
    `    const texts = ${JSON.stringify(texts)};`,
    "    const scores = await Promise.all(",
    `      texts.map((text) => env.AI.run(${JSON.stringify(model)}, { text })),`,
    "    );",
    "    return Response.json(scores);",
    "  },",
    "};",
  ],
  grpc: (url, body, model, texts) => [
    "# pip install 'tritonclient[grpc]'",
    "import numpy",
    "from tritonclient import grpc",
    "",
    "# The port is the server's GATEWAY_GRPC_PORT; with TLS, add ssl=True.",
    `client = grpc.InferenceServerClient("${location.hostname}:8001")`,
    `texts = numpy.array(${JSON.stringify(texts)}, dtype=object)`,
    'tensor = grpc.InferInput("TEXT", texts.shape, "BYTES").set_data_from_numpy(texts)',
    "answer = client.infer(",
    `    ${JSON.stringify(model)},`,
    "    [tensor],",
    `    headers={"authorization": "Bearer ${PLACEHOLDER}"},`,
    ")",
    'print(answer.as_numpy("probabilities"))',
  ],
};
