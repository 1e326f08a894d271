// Stands in for the AI binding: a service binding named AI leads here, and tritonflare answers. See README.md.
import { WorkerEntrypoint } from "cloudflare:workers";

const AIG = { id: "gateway-id", skipCache: "skip-cache", cacheTtl: "cache-ttl", requestTimeoutMs: "request-timeout" };
const headersOf = ({ gateway, extraHeaders }) => {
  const headers = { ...extraHeaders };
  for (const key in AIG) if (gateway?.[key] != null) headers[`cf-aig-${AIG[key]}`] = gateway[key];
  return headers;
};
const named = (name, message) => Object.assign(new Error(message), { name });

export default class extends WorkerEntrypoint {
  #api = `${this.env.CLOUDFLARE_API_BASE_URL}/accounts/${this.env.CLOUDFLARE_ACCOUNT_ID}/ai`;

  async run(model, inputs = {}, options = {}) {
    const { queueRequest, returnRawResponse, signal, ...others } = options ?? {};
    const path = `run/${encodeURIComponent(model)}${queueRequest || inputs?.request_id ? "?queueRequest=true" : ""}`;
    const response = await this.#call(`${this.#api}/${path}`, headersOf(others), inputs, signal);
    const text = await response.text();
    // REST wraps results and errors in an envelope; the binding does not.
    const { result, errors } = text.startsWith("{") ? JSON.parse(text) : {};
    const { code, message } = errors?.[0] ?? { message: text };
    const [, full, description] = message.match(/^(AiError: (?:Bad input: )?(.*)) \([\da-f-]{36}\)$/s) ?? [];
    if (returnRawResponse) {
      const error = { internalCode: code, httpCode: response.status, name: "AiError", message: full, description };
      const raw = new Response(response.ok ? JSON.stringify(result) : full ? JSON.stringify(error) : text, response);
      raw.headers.delete("content-length");
      return raw;
    }
    if (response.ok) return result;
    throw named(full ? "AiError" : "InferenceUpstreamError", code ? `${code}: ${description ?? message}` : message);
  }

  async models(params) {
    const response = await this.#call(`${this.#api}/models/search?${new URLSearchParams(params)}`);
    const { result, errors } = await response.json();
    if (!response.ok) throw named("AiInternalError", errors[0].message);
    return result;
  }

  gateway(id) {
    const base = this.env.CLOUDFLARE_API_BASE_URL.replace(/\/client\/v4\/?$/, "");
    const url = `${base}/v1/${this.env.CLOUDFLARE_ACCOUNT_ID}/${encodeURIComponent(id)}`;
    // AI Gateway's universal endpoint, which takes several requests and answers the first that succeeds.
    const run = (requests, options) =>
      this.#call(url, headersOf(options ?? {}), [requests].flat(), options?.signal);
    return { run, getUrl: (provider = "") => `${url}/${provider}` };
  }

  async #call(url, given, value, signal) {
    const headers = new Headers(given);
    if (!this.env.CLOUDFLARE_API_TOKEN) throw new Error("Set CLOUDFLARE_API_TOKEN in the shim's file .dev.vars");
    headers.set("Authorization", `Bearer ${this.env.CLOUDFLARE_API_TOKEN}`);
    const init = value === undefined ? { headers } : { headers, method: "POST", body: JSON.stringify(value), signal };
    return fetch(url, init).catch(() => {
      signal?.throwIfAborted();
      throw new Error(`No answer from ${new URL(url).origin}. Is the server running? \`make serve\` starts one.`);
    });
  }
}
