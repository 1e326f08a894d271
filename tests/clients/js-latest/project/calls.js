// Calls of the AI binding, given as JSON, and all that a Worker sees of their answers.
export async function report(ai, calls) {
  const seen = [];
  for (const call of calls) {
    try {
      const result = await make(ai, call);
      // Not instanceof: getPlatformProxy has a class Response of its own.
      seen.push(result?.headers && result.text ? { raw: await shown(result) } : { result });
    } catch (error) {
      seen.push({ error: { name: error.name, message: error.message } });
    }
  }
  return seen;
}

async function make(ai, { run, models, gateway, abort_ms: delay }) {
  if (models) return ai.models(models);
  if (gateway) {
    const [id, method, ...rest] = gateway;
    return ai.gateway(id)[method](...rest);
  }
  const [model, inputs, options] = run;
  return delay === undefined ? ai.run(...run) : ai.run(model, inputs, { ...options, signal: AbortSignal.timeout(delay) });
}

async function shown(response) {
  return { status: response.status, headers: Object.fromEntries(response.headers), body: await response.text() };
}
