// Sending texts in as many requests as they need, one after the other.

import { call, explain, Failure } from "./calls.js";

const POLL_MS = [250, 500, 1000, 2000]; // between two questions whether a batch is done; the last one stays
const MOST_BYTES = 500_000; // of the texts of one request; the gateway takes 1 MiB unless set
const MOST_TRIES = 8; // of a request that the gateway has no room for
const MOST_WAIT_S = 60;

/** Slashes of the name stay as they are, as in the documents. */
export function runPath(model) {
  return `/ai/run/${model.split("/").map(encodeURIComponent).join("/").replaceAll("%40", "@")}`;
}

export function payload(task, given, isQueued) {
  const requests = task.requests(given);
  return requests.length === 1 && !isQueued ? requests[0] : { requests };
}

/**
 * Sends the texts of a job that have no outcome yet, and fills in `job.outcomes`.
 *
 * A job is {model, task, query, texts, top, most, isQueued, outcomes, known, neurons, isCut, signal}, where
 * `known` is the number of texts that have an outcome. What was answered stays in it when this throws: a Failure, or the signal's reason if the job was stopped.
 *
 * @param {object} job changed in place; `isCut` says that some text was cut, outcomes have `isCut` of their own
 * @param {{answered: function(), waits: function(string)}} hooks told of every answer, and of what is waited for
 */
export async function send(job, hooks) {
  job.texts.forEach((text, place) => {
    if (!text.trim()) {
      settle(job, place, { error: new Failure("There is no text here."), isEmpty: true });
    }
  });
  let chunks = chunksOf(job, job.isQueued ? Infinity : job.most);
  const isLong = chunks.length > 1;
  for (let tries = 1; chunks.length > 0;) {
    try {
      await sendChunk(job, chunks[0], isLong, hooks);
      chunks.shift();
      tries = 1;
      hooks.answered();
    } catch (failure) {
      const isTooMuch = failure.status === 413 || failure.status === 408;
      if (isLong && isTooMuch && chunks[0].length > 1) {
        chunks = chunksOf(job, Math.ceil(chunks[0].length / 2));
      } else if (isLong && failure.status === 413) {
        settle(job, chunks.shift()[0], { error: failure });
      } else if (isLong && failure.retryAfter && tries < MOST_TRIES) {
        tries += 1;
        const seconds = Math.min(failure.retryAfter, MOST_WAIT_S);
        hooks.waits(`The gateway is busy. Going on in ${seconds} s.`);
        await pause(1000 * seconds, job.signal);
      } else {
        throw failure;
      }
    }
  }
}

/** Splits the places without an outcome into requests of at most `most` texts and some bytes. */
function chunksOf({ texts, outcomes, isQueued }, most) {
  const encoder = new TextEncoder();
  const chunks = [];
  let bytes = Infinity;
  texts.forEach((text, place) => {
    if (outcomes[place] !== undefined) {
      return;
    }
    const size = encoder.encode(JSON.stringify(text)).length;
    if (bytes + size > MOST_BYTES && !(isQueued && chunks.length) || chunks.at(-1).length === most) {
      chunks.push([]);
      bytes = 0;
    }
    chunks.at(-1).push(place);
    bytes += size;
  });
  return chunks;
}

async function sendChunk(job, places, isLong, hooks) {
  const { task, isQueued, signal } = job;
  // The best of each request alone would not be the best of all.
  const given = { query: job.query, texts: places.map((place) => job.texts[place]), top: isLong ? null : job.top };
  const path = runPath(job.model) + (isQueued ? "?queueRequest=true" : "");
  const post = (body) => call(path, { method: "POST", body: JSON.stringify(body), signal });
  let { body, response } = await post(payload(task, given, isQueued));
  for (let turn = 0; body.result.request_id && !body.result.responses; turn++) {
    hooks.waits(`The batch is ${body.result.status}. It stays on the server if you leave.`);
    await pause(POLL_MS[Math.min(turn, POLL_MS.length - 1)], signal);
    ({ body, response } = await post({ request_id: body.result.request_id }));
  }
  const found = task.outcomes(answersOf(body.result), given);
  for (const place of cutPlaces(response.headers, found.length)) {
    if (found[place]) {
      found[place].isCut = true;
      found[place].hasWindows = response.headers.has("x-windows");
    }
  }
  places.forEach((place, index) => settle(job, place, found[index]));
  job.neurons += Number(response.headers.get("cf-ai-neurons") ?? 0);
  job.isCut ||= response.headers.has("x-truncated");
}

function settle(job, place, outcome) {
  job.known += Number(job.outcomes[place] === undefined && outcome !== undefined);
  job.outcomes[place] = outcome;
}

/** Brings one request and several into one shape: a list of {result} or {error}. */
function answersOf(result) {
  const list = result.responses ?? [{ success: true, result }];
  return list.map((answer) => answer.success ? answer : { error: explain(0, answer.errors[0]) });
}

/** Which of the texts of a request were cut; none if the gateway does not say which. */
function cutPlaces(headers, count) {
  if (!headers.has("x-truncated")) {
    return [];
  }
  if (count === 1) {
    return [0];
  }
  return (headers.get("x-truncated-texts") ?? "").split(",").filter(Boolean).flatMap((run) => {
    const [first, last = first] = run.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, place) => first + place);
  });
}

function pause(milliseconds, signal) {
  return new Promise((done, failed) => {
    const stop = () => { clearTimeout(timer); failed(signal.reason); };
    const timer = setTimeout(() => { signal.removeEventListener("abort", stop); done(); }, milliseconds);
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) {
      stop();
    }
  });
}
