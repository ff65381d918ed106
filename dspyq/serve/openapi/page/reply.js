// The reply to a question: its text while it comes, the outputs, their origin and cost, or the problem.

import { element, textOf } from "./dom.js";

/** The part of the page that shows a reply. */
export class Reply {
  constructor() {
    this.status = element("p", { class: "status", role: "status" }, "Nothing was asked yet.");
    this.outputs = element("div", { class: "outputs", "aria-live": "polite", "aria-busy": "false" });
    this.problem = element("div", { role: "alert" });
    this.facts = element("div");
    this.element = element(
      "section",
      { "aria-labelledby": "reply-title" },
      element("h3", { id: "reply-title" }, "Answer"),
      this.status, this.problem, this.outputs, this.facts,
    );
  }

  /** Begin a new reply. */
  begin() {
    this.began = performance.now();
    this.texts = new Map();
    this.outputs.replaceChildren();
    this.problem.replaceChildren();
    this.facts.replaceChildren();
    this.outputs.setAttribute("aria-busy", "true");
    this.note("Asking…");
  }

  /** Show a line on the state of things. */
  note(text) {
    this.status.textContent = text;
  }

  /** Show the state of a prediction that is not there yet. */
  showStatus({ status, waits_for: guard, name }) {
    if (status === "tool") this.note(`Uses the tool ${name}`);
    else if (status === "stream") this.note(`Not all is streamed: ${name}`);
    else this.note(guard ? `${status}: waits for the ${guard.replace("_", " ")}` : status);
  }

  /** Show more text of an output. */
  append(field, text) {
    this.fieldOf(field).append(text);
  }

  /** Drop the text of outputs: it was of a reply that does not count. */
  reset(fields) {
    for (const field of fields) this.fieldOf(field).textContent = "";
  }

  /** Show a prediction that has ended. */
  complete(prediction) {
    const seconds = (performance.now() - this.began) / 1000;
    this.end();
    if (prediction.status === "cancelled") {
      this.note("Cancelled.");
    } else if (prediction.error) {
      this.fail(prediction.error);
    } else {
      for (const [field, text] of this.texts) {
        if (!(field in prediction.outputs)) text.previousSibling.textContent = `${field} (no output: as it was streamed)`;
      }
      for (const [field, value] of Object.entries(prediction.outputs)) this.fieldOf(field).textContent = textOf(value);
      this.note(`Answered in ${seconds.toFixed(2)} s.`);
    }
    this.facts.replaceChildren(factsOf(prediction, seconds), rawOf(prediction));
  }

  /** Show a problem. */
  fail(problem) {
    this.end();
    this.note("");
    const errors = (problem.errors ?? []).map(({ pointer, detail }) =>
      element("li", {}, element("code", {}, pointer || "/"), ` ${detail}`));
    const retry = problem.retryable
      ? `A retry can help${problem.retry_after_seconds ? ` in ${Math.ceil(problem.retry_after_seconds)} s` : ""}.`
      : "The same request would fail again.";
    this.problem.replaceChildren(
      element(
        "div",
        { class: "problem" },
        element("p", {}, element("strong", {}, problem.title), problem.status ? ` (${problem.status})` : ""),
        problem.detail && !errors.length ? element("p", {}, problem.detail) : null,
        errors.length ? element("ul", {}, ...errors) : null,
        element("p", { class: "note" }, problem.status === 401 ? "Enter a key above." : retry,
          problem.request_id ? ` Request ${problem.request_id}` : ""),
      ),
    );
  }

  /** End the reply as it stands. */
  end() {
    this.outputs.setAttribute("aria-busy", "false");
  }

  fieldOf(name) {
    if (!this.texts.has(name)) {
      const text = element("pre", { class: "text" });
      this.outputs.append(element("div", { class: "output" }, element("h4", {}, name), text));
      this.texts.set(name, text);
    }
    return this.texts.get(name);
  }
}

function factsOf({ metadata, variant, id }, seconds) {
  const rows = [];
  if (metadata) {
    const { cost_usd: cost, usage, model, fallback } = metadata;
    rows.push(
      ["Cost", cost === null ? "not known" : `$${cost.toFixed(cost === 0 ? 0 : 6)}`],
      ["Time", `${metadata.duration_seconds.toFixed(2)} s to compute, ${seconds.toFixed(2)} s here`],
      ["Cache", cacheOf(metadata)],
      ["Tokens", `${usage.prompt_tokens} in, ${usage.completion_tokens} out`],
      ["Model", model],
    );
    if (fallback) rows.push(["Fallback", fallback]);
  }
  rows.push(["Variant", variant], ["Prediction", id]);
  const shown = rows.filter(([, value]) => value);
  return element("dl", {}, ...shown.map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

function cacheOf({ cached, cache_level: level }) {
  if (level === "joined") return "joined a run of the same question";
  return cached ? `from ${level}` : "computed now";
}

function rawOf(prediction) {
  return element("details", {}, element("summary", {}, "As JSON"),
    element("pre", { tabindex: "0" }, JSON.stringify(prediction, null, 2)));
}
