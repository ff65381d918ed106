// The docs page: the programs that its user may ask, and one of them by the path.

import { Problem, get, pathOf, programOfAddress, useKey } from "./api.js";
import { element } from "./dom.js";
import { ProgramView } from "./program.js";

const PATH = /^\/v1\/programs\/([^/{}]+)\/predictions$/;
const main = document.getElementById("main");
const list = document.getElementById("programs");
const keyNote = document.getElementById("key-note");
const keyField = document.getElementById("key");
let api = { paths: {} };
let programs = new Map();
let shown = null;

/** Read what the server shows, and show it. */
async function load() {
  try {
    api = await get("/openapi.json");
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    main.replaceChildren(element("p", { role: "alert", class: "problem" }, `${error.message}. ${error.stated.detail ?? ""}`));
    return;
  }
  programs = new Map();
  for (const [path, { post }] of Object.entries(api.paths)) {
    const found = PATH.exec(path);
    if (found && post) programs.set(found[1], post);
  }
  list.replaceChildren(
    ...[...programs.keys()].map((name) => element("li", {},
      element("a", { href: pathOf(`/docs/${encodeURIComponent(name)}`), onclick: (event) => go(event, name) }, name))),
  );
  show();
}

/** Go to a program, or to the start, without loading the page anew: that would forget the key. */
function go(event, name) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  history.pushState(null, "", event.currentTarget.href);
  show();
  (name ? shown?.title : list.querySelector("a"))?.focus();
}

/** Show the program of the address. */
function show() {
  shown?.stop();
  shown = null;
  const name = programOfAddress();
  document.title = name ? `${name} · dspyq` : "dspyq";
  for (const link of list.querySelectorAll("a")) {
    if (link.textContent === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (programs.has(name)) {
    shown = new ProgramView(name, programs.get(name), api);
    main.replaceChildren(shown.element);
  } else if (name) {
    main.replaceChildren(element("h2", {}, name), element("p", {},
      "There is no such program, or it is not shown without a key that may ask it."));
  } else {
    main.replaceChildren(element("p", {}, programs.size ? "Choose a program."
      : "No program is shown without a key that may ask it: enter one above."));
  }
}

async function enterKey(event) {
  event.preventDefault();
  useKey(keyField.value.trim());
  keyField.value = "";
  try {
    const { tenant, name, id } = await get("/v1/key");
    keyNote.textContent = id ? `Asks with the key ${name ?? id}${tenant ? ` of ${tenant}` : ""}.`
      : "Asks without a key, as everyone may here.";
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    useKey("");
    keyNote.textContent = `${error.stated.title}${error.stated.detail ? `: ${error.stated.detail}` : ""}.`;
  }
  await load();
}

document.getElementById("key-form").addEventListener("submit", enterKey);
document.getElementById("home").addEventListener("click", (event) => go(event, ""));
addEventListener("popstate", show);
load();
