// Requests to the server that the page came from. The key is in this module's memory, and nowhere else.

const ROOT = document.body.dataset.root;
const MOST_TRIES = 5;
const RETRY_MILLISECONDS = 1000;
// An answer that takes longer comes by its id, by which it can be cancelled meanwhile.
const FIRST_SECONDS = 1;
const POLL_SECONDS = 20;
let key = "";

/** A problem that the server answered with, or the page's own in the same form. */
export class Problem extends Error {
  constructor(stated) {
    super(stated.title);
    this.stated = stated;
  }
}

export function useKey(text) {
  key = text;
}

/** Return a path of the server, as the browser reaches it. */
export function pathOf(path) {
  return `${ROOT}${path}`;
}

/** Return the program that the page's address names; empty for none. */
export function programOfAddress() {
  const rest = location.pathname.slice(pathOf("/docs").length);
  try {
    return decodeURIComponent(rest.replace(/^\//, ""));
  } catch {
    return "";
  }
}

/** Return what a path answers, as JSON. */
export async function get(path, signal) {
  return (await request(pathOf(path), { signal })).json();
}

/** Ask a program and wait for its end; `seen` is called with each state of the prediction. */
export async function ask(program, body, signal, seen) {
  const headers = { Prefer: `wait=${FIRST_SECONDS}` };
  let prediction = await (await post(program, body, signal, headers)).json();
  seen(prediction);
  while (["queued", "running"].includes(prediction.status)) {
    prediction = await (await request(`${prediction.urls.self}?wait=${POLL_SECONDS}`, { signal })).json();
    seen(prediction);
  }
  return prediction;
}

/** Take the interest in a prediction back. */
export async function cancel(id) {
  await request(pathOf(`/v1/predictions/${encodeURIComponent(id)}/cancel`), { method: "POST" });
}

/**
 * Ask a program and pass on the events of its answer, up to the last, at another server where one ends.
 * @param {(name: string, data: Object) => void} seen Is called with each event.
 */
export async function stream(program, body, signal, seen) {
  let response = await post(program, { ...body, stream: true }, signal);
  let place = "";
  let id = "";
  for (let tries = 0; ; tries += 1) {
    const events = eventsOf(response);
    for (;;) {
      const next = await events.next().catch((error) => {
        if (signal.aborted) throw error;
        return { done: true };
      });
      if (next.done || next.value.name === "reconnect") break;
      const event = next.value;
      if (event.id) place = event.id;
      id = event.data.id ?? id;
      seen(event.name, event.data);
      if (["completed", "failed", "cancelled"].includes(event.name)) return;
    }
    response = null;
    while (response === null) {
      if (!id || tries >= MOST_TRIES) throw new Problem({ title: "The stream broke", detail: "", retryable: true });
      await new Promise((resolve) => setTimeout(resolve, RETRY_MILLISECONDS));
      const headers = place ? { "Last-Event-ID": place } : {};
      const path = pathOf(`/v1/predictions/${encodeURIComponent(id)}/events`);
      try {
        response = await request(path, { headers, signal });
      } catch (error) {
        if (signal.aborted || !error.stated?.retryable) throw error;
        tries += 1;
      }
    }
  }
}

function post(program, body, signal, stated = {}) {
  const path = pathOf(`/v1/programs/${encodeURIComponent(program)}/predictions`);
  const headers = { "Content-Type": "application/json", ...stated };
  return request(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

async function request(path, options) {
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem({ title: "The server does not answer", detail: error.message, retryable: true });
  }
  if (response.ok) return response;
  const isProblem = response.headers.get("content-type")?.includes("problem+json");
  throw new Problem(isProblem ? await response.json() : { title: `HTTP ${response.status}`, status: response.status });
}

/** Yield the server-sent events of a response. */
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffered = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (buffered + value).split("\n\n");
    buffered = events.pop();
    for (const text of events) {
      const event = { name: "", id: "", data: null };
      for (const line of text.split("\n")) {
        const at = line.indexOf(": ");
        const [field, rest] = [line.slice(0, at), line.slice(at + 2)];
        if (field === "event") event.name = rest;
        else if (field === "id") event.id = rest;
        else if (field === "data") event.data = JSON.parse(rest);
      }
      if (event.data !== null) yield event;
    }
  }
}
