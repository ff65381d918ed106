// The part of the page for one program: its form, the reply, and the same call as code.

import { Problem, ask, cancel, pathOf, stream } from "./api.js";
import { LANGUAGES } from "./calls.js";
import { element } from "./dom.js";
import { Fields } from "./form.js";
import { Reply } from "./reply.js";

/** One program. */
export class ProgramView {
  /**
   * @param {string} name The program.
   * @param {Object} operation Its operation in the description of the API.
   * @param {Object} api The description.
   */
  constructor(name, operation, api) {
    this.name = name;
    const { inputs, stream: streams, ...options } = operation.requestBody.content["application/json"].schema.properties;
    this.inputs = new Fields(inputs.$ref ? schemaAt(inputs.$ref, api) : inputs, api);
    this.options = new Fields({ properties: options }, api);
    this.reply = new Reply();
    this.running = null;
    this.stopButton = element("button", { type: "button", disabled: true, onclick: () => this.stop() }, "Stop");
    this.startButtons = [element("button", { class: "first" }, "Ask")];
    if (streams) {
      this.startButtons.push(element("button", { type: "button", onclick: () => this.start(true) }, "Stream"));
    }
    this.form = element(
      "form",
      {
        novalidate: true,
        autocomplete: "off",
        "aria-label": `Ask ${name}`,
        onsubmit: (event) => {
          event.preventDefault();
          this.start(false);
        },
        onkeydown: (event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.start(false);
        },
        oninput: () => this.showCall(),
      },
      ...this.inputs.elements,
      element("details", {}, element("summary", {}, "Options"), ...this.options.elements),
      element("div", { class: "row" }, ...this.startButtons, this.stopButton),
    );
    this.title = element("h2", { tabindex: "-1" }, name);
    this.element = element(
      "article",
      {},
      this.title,
      operation.description ? element("p", { class: "text" }, operation.description) : null,
      this.form,
      this.reply.element,
      this.callPart(Boolean(streams)),
    );
    this.showCall();
  }

  /** Ask, or stream, with what the form states. */
  async start(isStreamed) {
    if (this.running) return;
    const [inputs, options] = [this.inputs.read(), this.options.read()];
    if (inputs === null || options === null) {
      this.inputs.focusFault();
      if (inputs !== null) {
        this.form.querySelector("details").open = true;
        this.options.focusFault();
      }
      return;
    }
    this.streamed.checked = isStreamed;
    this.showCall();
    const running = { controller: new AbortController(), id: "" };
    this.running = running;
    this.setBusy(true);
    this.reply.begin();
    try {
      const body = { inputs, ...options };
      await (isStreamed ? this.streamReply(body, running) : this.waitForReply(body, running));
    } catch (error) {
      if (running.controller.signal.aborted) {
        this.reply.end();
        this.reply.note("Stopped.");
      } else if (error instanceof Problem) {
        this.reply.fail(error.stated);
        this.markFaults(error.stated.errors ?? []);
      } else {
        this.reply.fail({ title: "The page has a fault", detail: String(error) });
        throw error;
      }
    } finally {
      this.running = null;
      this.setBusy(false);
    }
  }

  /** End what runs: nothing is waited for any more, and the call is taken back. */
  stop() {
    if (!this.running) return;
    const { controller, id } = this.running;
    controller.abort();
    if (id) cancel(id).catch((error) => this.reply.note(`Stopped, but not cancelled: ${error.message}.`));
  }

  async waitForReply(body, running) {
    const prediction = await ask(this.name, body, running.controller.signal, (seen) => {
      running.id = seen.id;
      this.reply.showStatus(seen);
    });
    this.reply.complete(prediction);
  }

  async streamReply(body, running) {
    await stream(this.name, body, running.controller.signal, (kind, data) => {
      if (kind === "status") {
        running.id = data.id ?? running.id;
        this.reply.showStatus(data);
      } else if (kind === "delta") {
        this.reply.append(data.field, data.text);
      } else if (kind === "reset") {
        this.reply.reset(data.fields);
      } else if (kind === "failed") {
        this.reply.fail(data);
      } else {
        this.reply.complete(data);
      }
    });
  }

  setBusy(isBusy) {
    this.stopButton.disabled = !isBusy;
    // Not `disabled`, which would take the focus away from the button that was pressed.
    for (const button of this.startButtons) button.setAttribute("aria-disabled", String(isBusy));
  }

  markFaults(errors) {
    for (const { pointer, detail } of errors) {
      const [, part, name] = pointer.split("/").map((each) => each.replace(/~1/g, "/").replace(/~0/g, "~"));
      if (part === "inputs") this.inputs.mark(name, detail);
      else this.options.mark(part, detail);
    }
    this.inputs.focusFault();
  }

  callPart(mayStream) {
    this.code = element("code");
    this.languages = Object.keys(LANGUAGES).map((language, at) =>
      element("input", { type: "radio", name: "language", value: language, checked: at === 0 }));
    this.streamed = element("input", { type: "checkbox" });
    const copied = element("span", { class: "note", role: "status" });
    const copy = async () => {
      await navigator.clipboard.writeText(this.code.textContent);
      copied.textContent = "Copied.";
    };
    return element(
      "section",
      { "aria-labelledby": "call-title", onchange: () => this.showCall() },
      element("h3", { id: "call-title" }, "The same call"),
      element(
        "fieldset",
        { class: "row" },
        element("legend", { class: "hidden" }, "Language"),
        ...this.languages.map((radio) => element("label", {}, radio, ` ${radio.value}`)),
        mayStream ? element("label", {}, this.streamed, " streamed") : null,
      ),
      element("pre", { class: "call", role: "region", tabindex: "0", "aria-label": "The call as code" }, this.code),
      // A page has a clipboard at https and on its own machine alone.
      navigator.clipboard ? element("div", { class: "row" },
        element("button", { type: "button", onclick: copy }, "Copy"), copied) : null,
    );
  }

  showCall() {
    const language = this.languages.find((radio) => radio.checked).value;
    const url = new URL(pathOf(`/v1/programs/${encodeURIComponent(this.name)}/predictions`), location.href).href;
    const body = { inputs: this.inputs.peek(), ...this.options.peek() };
    this.code.textContent = LANGUAGES[language](url, body, this.streamed.checked);
  }
}

function schemaAt(reference, api) {
  return api.components.schemas[reference.split("/").at(-1)];
}
