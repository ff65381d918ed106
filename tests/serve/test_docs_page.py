"""The docs page, by a real browser, server and worker."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys

import httpx
import pytest

from dspyq.api_keys.store import ApiKeys
from dspyq.config.key_grants import KeyGrant
from dspyq.serve.app import build_app
from dspyq.serve.door import Door
from dspyq.store.clients import jobs_client
from tests.support.browser import IS_INSTALLED, Browser
from tests.support.html_page import Page

ANSWER = "one two three four five six seven eight nine ten"
SLOW = {"outputs": {"answer": ANSWER}, "piece_characters": 6, "piece_interval_seconds": 0.1}
CSP = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'"
SIGNATURE = (
    "title: str, size: int, share: float, is_new: bool, kind: Literal['plain', \"it's\"], tags: list[str], "
    "extra: dict[str, int], hint: str = 'none', limit: int | None -> answer"
)
in_browser = pytest.mark.skipif(not IS_INSTALLED, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture
def page(browser):
    """Open a page: ``page(url)``."""
    tabs = []

    def open_page(url, **options):
        tabs.append(browser.open(url, **options))
        return tabs[-1]

    yield open_page
    for tab in tabs:
        tab.close()


def fill(tab, field, value):
    """Put a value into the control of a label, as typing does."""
    tab.run(f"""{{
      const labels = [...document.querySelectorAll("label")];
      const label = labels.find((each) => each.firstChild.data === {json.dumps(field)});
      const control = document.getElementById(label.htmlFor);
      if (control.type === "checkbox") control.checked = {json.dumps(value)};
      else control.value = {json.dumps(value)};
      control.dispatchEvent(new Event("input", {{bubbles: true}}));
    }}""")


def click(tab, words):
    """Click a button or a link."""
    tab.until(f"""(() => {{
      const all = [...document.querySelectorAll("button, a")];
      const found = all.find((each) => each.textContent === {json.dumps(words)});
      found?.click();
      return found !== undefined;
    }})()""")


def shown_outputs(tab):
    return tab.run("document.querySelector('.outputs').innerText")


def answered(tab):
    tab.until("document.querySelector('.status').textContent.startsWith('Answered')")
    return shown_outputs(tab)


def shown_call(tab, language):
    tab.run(f"document.querySelector('input[value={language}]').click()")
    return tab.run("document.querySelector('pre > code').textContent")


def output_of(command, env):
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


def test_the_page_is_served_with_a_policy_and_can_be_turned_off(door, shared_door, settings_file):
    for path, kind in {
        "/docs": "text/html", "/docs/qa": "text/html", "/docs/assets/page.js": "text/javascript",
        "/docs/assets/page.css": "text/css",
    }.items():  # fmt: skip
        reply = shared_door.api.get(path)
        assert (reply.status_code, reply.headers["content-security-policy"]) == (200, CSP)
        assert reply.headers["content-type"] == f"{kind}; charset=utf-8"
        assert reply.headers["x-content-type-options"] == "nosniff"
    assert shared_door.api.get("/docs/assets/%2e%2e%2fapp.py").status_code == 404
    assert shared_door.api.get("/docs/assets/page.html").status_code == 404
    server = door(settings_file({"serve": {"docs": False, "root_path": "/ai"}}))
    assert server.api.get("/docs").status_code == 404
    assert server.api.get("/docs/assets/page.js").status_code == 404


@pytest.mark.usefixtures("configured")
def test_behind_a_proxy_the_page_refers_to_the_paths_that_its_user_reaches():
    async def page_text():
        transport = httpx.ASGITransport(build_app(Door("loopback")), root_path="/ai")
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.get("/docs/qa")).text

    page = Page(asyncio.run(page_text()))
    assert page.references == [
        "/ai/docs/assets/page.css", "/ai/docs/assets/page.js", "/ai/docs", "/ai/openapi.json",
    ]  # fmt: skip
    assert ("body", {"data-root": "/ai"}) in page.elements


@in_browser
@pytest.mark.usefixtures("shared_worker")
def test_a_question_is_asked_and_streamed_and_nothing_leaves_the_origin(shared_door, endpoint, page):
    hostile = "</script><img src=x onerror='window.hurt=1'><b>bold</b>"
    endpoint.script(outputs={"answer": hostile})
    tab = page(f"{shared_door.url}/docs")
    click(tab, "qa")
    fill(tab, "question", "on the page")
    click(tab, "Ask")
    assert hostile in answered(tab)
    facts = tab.run("document.querySelector('dl').innerText")
    assert "computed now" in facts
    assert "$0.0" in facts
    assert tab.run("document.querySelectorAll('#main b, #main img').length || window.hurt || 0") == 0
    click(tab, "Ask")
    tab.until("document.querySelector('dl')?.innerText.includes('from memory')")

    endpoint.script(**SLOW)
    fill(tab, "question", "streamed on the page")
    tab.run("""
      globalThis.seen = new Set();
      new MutationObserver(() => seen.add(document.querySelector(".output pre")?.textContent ?? "")).observe(
        document.querySelector(".outputs"), {childList: true, subtree: true, characterData: true});
    """)
    click(tab, "Stream")
    assert ANSWER in answered(tab)
    grown = [text for text in tab.run("[...seen]") if text]
    assert len(grown) > 3
    assert all(ANSWER.startswith(text) for text in grown)

    requested = {each["request"]["url"] for each in tab.events("Network.requestWillBeSent")}
    assert requested
    assert all(url.startswith(f"{shared_door.url}/") for url in requested)
    assert tab.events("Log.entryAdded") == []
    assert tab.events("Runtime.exceptionThrown") == []


@in_browser
@pytest.mark.usefixtures("shared_worker")
def test_a_stream_that_breaks_goes_on_behind_its_last_event(shared_door, endpoint, page):
    endpoint.script(**SLOW)
    tab = page(f"{shared_door.url}/docs/qa")
    tab.until("document.querySelector('form[aria-label]') !== null")
    tab.run("""
      const real = window.fetch;
      window.fetch = async (path, options) => {
        const response = await real(path, options);
        if (options.method !== "POST") return response;
        const reader = response.body.getReader();
        let parts = 0;
        const pull = async (controller) => {
          parts += 1;
          if (parts > 4) controller.error(new TypeError("the connection broke"));
          else controller.enqueue((await reader.read()).value);
        };
        return new Response(new ReadableStream({pull}), {headers: response.headers});
      };
    """)
    fill(tab, "question", "broken on the page")
    click(tab, "Stream")
    assert ANSWER in answered(tab)
    requests = [each["request"] for each in tab.events("Network.requestWillBeSent")]
    resumed = [each for each in requests if each["url"].endswith("/events")]
    assert len(resumed) == 1
    assert int(resumed[0]["headers"]["Last-Event-ID"]) > 0
    assert endpoint.calls() == 1


@in_browser
@pytest.mark.usefixtures("configured")
def test_public_docs_show_programs_without_a_key_and_answer_none(door, settings_file, page):
    ApiKeys(jobs_client()).create("acme", "elsewhere", KeyGrant())
    server = door(settings_file({"serve": {"public_docs": True}}))
    tab = page(f"{server.url}/docs")
    click(tab, "qa")
    fill(tab, "question", "without a key")
    click(tab, "Ask")
    problem = tab.until("document.querySelector('.problem')?.innerText")
    assert "A valid key is missing (401)" in problem
    assert "Enter a key above." in problem


@in_browser
def test_a_reply_that_begins_anew_clears_its_text_and_ends_with_the_outputs(shared_door, page):
    """The module of the reply alone: when a reset comes is the worker's to choose."""
    tab = page(f"{shared_door.url}/docs")
    texts = tab.run("""
      const { Reply } = await import("/docs/assets/reply.js");
      const reply = new Reply();
      const texts = () => [...reply.outputs.querySelectorAll("pre")].map((each) => each.textContent);
      reply.begin();
      reply.append("answer", "wrong");
      reply.append("notes", "kept");
      const before = texts();
      reply.reset(["answer"]);
      reply.append("answer", "right");
      const after = texts();
      const live = [reply.outputs.ariaLive, reply.outputs.ariaBusy];
      reply.complete({status: "succeeded", outputs: {answer: "validated"}, metadata: null, id: "pred_1"});
      [before, after, live, texts(), reply.outputs.ariaBusy]
    """)
    assert texts == [["wrong", "kept"], ["right", "kept"], ["polite", "true"], ["validated", "kept"], "false"]


@in_browser
@pytest.mark.usefixtures("configured")
def test_the_form_has_a_control_for_each_type_and_asks_by_a_key_in_memory_alone(door, settings_file, page):
    key = ApiKeys(jobs_client()).create("acme", "of the page", KeyGrant())
    server = door(settings_file({"programs": {"typed": {
        "signature": SIGNATURE, "variants": {"control": {"model": "control"}},
    }}}))  # fmt: skip
    tab = page(f"{server.url}/docs/typed")
    tab.until("document.querySelector('main').innerText.includes('not shown without a key')")
    assert tab.run("document.querySelectorAll('nav li').length") == 0
    tab.run("document.querySelector('#key').focus()")
    tab.type("dspyq_wrong")
    tab.press("Enter")
    tab.until("document.querySelector('#key-note').innerText.startsWith('A valid key is missing')")
    tab.type(key.text)
    tab.press("Enter")
    tab.until("document.querySelector('#key-note').innerText.includes('of the page of acme')")

    controls = tab.until("""[...document.querySelectorAll("article > form > .field")].map((field) => {
      const control = field.querySelector("input, select, textarea");
      return [field.querySelector("label").firstChild.data, control.type, control.getAttribute("aria-required")];
    })""")
    assert controls == [
        ["title", "textarea", "true"], ["size", "text", "true"], ["share", "text", "true"],
        ["is_new", "checkbox", None], ["kind", "select-one", "true"], ["tags", "textarea", "true"],
        ["extra", "textarea", "true"], ["hint", "textarea", "false"], ["limit", "text", "false"],
    ]  # fmt: skip
    for field, value in {"title": "It's", "size": "2.5", "share": "0.5", "is_new": True, "tags": '["a"'}.items():
        fill(tab, field, value)
    click(tab, "Ask")
    faults = tab.run("[...document.querySelectorAll('.error')].map((each) => each.textContent).filter(Boolean)")
    assert faults[0] == "This is not an integer."
    assert faults[2].startswith("This is not JSON")
    assert faults[1] == faults[3] == "A value is needed."
    assert tab.run("document.activeElement === document.querySelector('[aria-invalid=true]')")
    for field, value in {"size": "9007199254740991", "kind": "1", "tags": '["a", 1]', "extra": '{"b": 2}'}.items():
        fill(tab, field, value)
    click(tab, "Ask")
    tab.until("document.querySelector('.problem')?.innerText.includes('/inputs/tags/1')")
    fill(tab, "tags", '["a"]')
    click(tab, "Ask")  # no worker has the program
    tab.until("['queued', 'running'].includes(document.querySelector('.status').textContent)")
    click(tab, "Stop")
    tab.until("document.querySelector('.status').textContent === 'Stopped.'")

    requests = [each["request"] for each in tab.events("Network.requestWillBeSent")]
    inputs = json.loads([each["postData"] for each in requests if "postData" in each][-1])["inputs"]
    assert inputs == {
        "title": "It's", "size": 9007199254740991, "share": 0.5, "is_new": True, "kind": "it's", "tags": ["a"],
        "extra": {"b": 2},
    }  # fmt: skip
    kept = tab.run("""JSON.stringify([location.href, {...localStorage}, {...sessionStorage}, document.cookie,
      history.state, await indexedDB.databases(), document.documentElement.outerHTML])""")
    assert key.text not in kept
    assert all(key.text not in each["url"] for each in requests)


@in_browser
@pytest.mark.usefixtures("shared_worker")
def test_the_same_call_runs_as_curl_python_and_typescript(shared_door, endpoint, page):
    tab = page(f"{shared_door.url}/docs/qa")
    tab.until("document.querySelector('form[aria-label]') !== null")
    question = 'It\'s "quoted" $HOME \\ ünï 🙂\n```'
    fill(tab, "question", question)
    codes = {language: shown_call(tab, language) for language in ("curl", "Python", "TypeScript")}
    env = {**os.environ, "DSPYQ_KEY": "any"}
    by_curl = output_of([shutil.which("bash"), "-c", codes["curl"]], env)
    answer = json.loads(by_curl)["outputs"]["answer"]
    assert answer == f"echo:{question}"
    assert output_of([sys.executable, "-c", codes["Python"]], env) == f"succeeded { {'answer': answer}!r}\n"
    tab.run("globalThis.process = {env: {DSPYQ_KEY: 'any'}}")
    assert tab.run(f"{codes['TypeScript']}\nprediction.outputs.answer") == answer
    assert endpoint.calls() == 1


@in_browser
@pytest.mark.usefixtures("shared_worker")
def test_the_page_works_at_360_pixels_by_keyboard_and_in_the_dark(shared_door, endpoint, page):
    endpoint.script(outputs={"answer": "w" * 400})
    tab = page(f"{shared_door.url}/docs", width=360, features={"prefers-color-scheme": "dark"})
    tab.until("document.querySelector('nav a') !== null")

    def tab_to(wanted):
        for _ in range(30):
            tab.press("Tab")
            if tab.run(f"document.activeElement.matches({json.dumps(wanted)})"):
                assert tab.run("getComputedStyle(document.activeElement).outlineStyle") != "none"
                return
        raise AssertionError(f"no Tab leads to {wanted}")

    tab_to("nav li a")
    tab.press("Enter")
    assert tab.until("document.activeElement.tagName === 'H2' && document.activeElement.textContent") == "qa"
    tab_to("article textarea")
    tab.type("by keyboard")
    tab_to("article button.first")
    tab.press("Enter")
    assert "w" * 400 in answered(tab)
    assert tab.run("document.activeElement.textContent") == "Ask"
    tab_to("article section summary")
    tab.press("Enter")
    tab_to("input[value=curl]")
    tab.press("ArrowDown")
    assert "import httpx" in tab.run("document.querySelector('pre > code').textContent")
    assert tab.run("document.documentElement.scrollWidth") == 360
    unnamed = tab.run("""[...document.querySelectorAll("input, select, textarea")].filter(
      (each) => !each.labels.length).length""")
    assert unnamed == 0
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert tab.run("getComputedStyle(document.body).color") == "rgb(230, 233, 237)"


@pytest.mark.long
@in_browser
@pytest.mark.usefixtures("shared_worker")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault_of_accessibility(shared_door, endpoint, page, tmp_path, scheme):
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm here")
    command = [npm, "install", "--no-audit", "--no-fund", "axe-core@4"]
    installed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"npm cannot get the package: {installed.stderr[-200:]}")
    endpoint.script(outputs={"answer": "yes"})
    tab = page(f"{shared_door.url}/docs", features={"prefers-color-scheme": scheme})
    tab.until("document.querySelector('nav a') !== null")
    tab.run((tmp_path / "node_modules/axe-core/axe.min.js").read_text() + "; true")

    def serious():
        tab.run("window.found = null; axe.run().then((result) => { window.found = result; }); true")
        tab.until("window.found !== null")
        violations = json.loads(tab.run("JSON.stringify(window.found.violations)"))
        assert tab.run("window.found.passes.length") > 5
        return [
            (each["id"], [(node["html"], node["failureSummary"]) for node in each["nodes"]])
            for each in violations
            if each["impact"] in {"serious", "critical"}
        ]

    assert serious() == []
    click(tab, "qa")
    fill(tab, "question", "by axe")
    click(tab, "Ask")
    assert "yes" in answered(tab)
    # A button that fades in has less contrast for a tenth of a second.
    tab.until("document.querySelector('[aria-disabled=true]') === null && document.getAnimations().length === 0")
    assert serious() == []
