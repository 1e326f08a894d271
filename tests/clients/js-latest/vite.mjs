// Makes the calls on standard input in a project under Vite's development server.
import { text } from "node:stream/consumers";
import { createServer } from "vite";

const { root, requests } = JSON.parse(await text(process.stdin));
const server = await createServer({ root, logLevel: "error", server: { port: 0 } });
await server.listen();
const { port } = server.httpServer.address();
const answers = [];
for (const request of requests) {
  const response = await fetch(`http://localhost:${port}/`, { method: "POST", body: JSON.stringify(request) });
  answers.push(response.ok ? await response.json() : { failed: await response.text() });
}
console.log(JSON.stringify(answers));
await server.close();
