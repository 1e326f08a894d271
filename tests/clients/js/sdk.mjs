// Makes the calls that it is told on stdin with the cloudflare package, and prints how each ended.
// {options, calls: [[path of the method, …arguments]]} → [{result | error, requests: [{path, at}]}], at in seconds.
import { text } from "node:stream/consumers";
import Cloudflare from "cloudflare";

const { options, calls } = JSON.parse(await text(process.stdin));
let requests;
const client = new Cloudflare({
  ...options,
  fetch: (url, init) => {
    requests.push({ path: new URL(url).pathname, at: performance.now() / 1000 });
    return fetch(url, init);
  },
});

async function outcome(method, given) {
  const names = method.split(".");
  const last = names.pop();
  const owner = names.reduce((object, name) => object[name], client);
  try {
    const pending = owner[last](...given);
    if (pending[Symbol.asyncIterator] === undefined) return { result: (await pending) ?? null };
    const result = [];
    for await (const item of pending) result.push(item);
    return { result };
  } catch (error) {
    if (!(error instanceof Cloudflare.APIError)) throw error;
    const { constructor, status, errors, headers } = error;
    return { error: { kind: constructor.name, status, errors, headers: Object.fromEntries(headers) } };
  }
}

const seen = [];
for (const [method, ...given] of calls) {
  requests = [];
  seen.push({ ...(await outcome(method, given)), requests });
}
console.log(JSON.stringify(seen));
