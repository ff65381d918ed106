"""Requests of the clients on the wire: once each, with the access of live calls, and errors by the step they allow."""

from __future__ import annotations

import base64
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from dspyq.config.secrets import SECRET, process_secrets
from dspyq.errors import ConfigurationError
from dspyq.guards.provider_access import ProviderAccess
from dspyq.lane.providers.choice import provider_for
from dspyq.lane.providers.errors import (
    BatchInterfaceClosed,
    BatchInterfaceError,
    CreationUnknown,
    ProviderBusy,
    ReplyUnusable,
)
from dspyq.lane.providers.http import ProviderHttp
from dspyq.lane.providers.protocol import BatchProvider, ShipmentLine
from tests.lane.body_forms import KEY
from tests.lane.provider_support import access_to, client, ended, lines_of, results, submit
from tests.support.endpoint import Endpoint
from tests.support.processes import wait_until

_MOST_REQUEST_BYTES = 65_536


class OneReply:
    """A server that answers each connection with the same bytes and keeps the heads of requests.

    Attributes:
        port: Its port.
        heads: The heads of requests.
    """

    def __init__(self, reply: bytes | None) -> None:
        self._reply = reply
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._is_closing = False
        self.port: int = self._listener.getsockname()[1]
        self.heads: list[str] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """Stop; the thread closes what it opened, so that it uses no descriptor that is another's by then."""
        self._is_closing = True
        for each in (self._listener, *self._open):
            with suppress(OSError):  # the client has gone
                each.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _serve(self) -> None:
        with ExitStack() as opened, suppress(OSError):  # the listener was shut
            opened.enter_context(self._listener)
            while True:
                connection, _ = self._listener.accept()
                self._open.append(opened.enter_context(connection))
                if self._is_closing:
                    return
                with suppress(OSError):  # the client has gone
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        self.heads.append(connection.recv(_MOST_REQUEST_BYTES).decode("latin-1"))
        if self._reply is not None:
            connection.sendall(self._reply)
            connection.shutdown(socket.SHUT_WR)


@pytest.fixture
def serve() -> Iterator[Callable[[bytes | None], OneReply]]:
    """Start a server of one reply; None never answers."""
    servers: list[OneReply] = []

    def start(reply: bytes | None) -> OneReply:
        servers.append(OneReply(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def at(server: OneReply, **changes: object) -> BatchProvider:
    stated = {"headers": (("authorization", f"Bearer {KEY}"),), "timeout_seconds": 5.0, "setting": "models.fast"}
    return provider_for(
        "openai", ProviderAccess("openai-chat", f"http://127.0.0.1:{server.port}/v1", **stated | changes)
    )  # type: ignore[arg-type]  # fields of several types


def reply_of(status: str, body: bytes, *headers: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers])
    return f"{head}\r\n\r\n".encode() + body


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"id": 7}', b"[]", b""])
def test_a_creation_whose_reply_names_no_batch_is_unknown(
    serve: Callable[[bytes | None], OneReply], body: bytes
) -> None:
    server = serve(reply_of("200 OK", body))
    with pytest.raises(CreationUnknown):
        at(server).create("dspyq-1", file_id="file-1")
    assert len(server.heads) == 1


def test_a_creation_that_is_cut_short_or_never_answered_is_unknown_and_sent_once(
    serve: Callable[[bytes | None], OneReply],
) -> None:
    for reply in (reply_of("200 OK", b'{"id": "batch_1"}')[:-4], None):
        server = serve(reply)
        with pytest.raises(CreationUnknown):
            at(server, timeout_seconds=0.3).create("dspyq-1", file_id="file-1")
        wait_until(lambda server=server: server.heads, 60, "the server to read the request")
        assert len(server.heads) == 1


def test_a_poll_that_is_not_answered_had_no_effect(serve: Callable[[bytes | None], OneReply]) -> None:
    with pytest.raises(ProviderBusy, match="was not answered"):
        at(serve(None), timeout_seconds=0.3).poll("batch_1")


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[1, 2"])
def test_a_poll_that_cannot_be_read_is_unusable(serve: Callable[[bytes | None], OneReply], body: bytes) -> None:
    with pytest.raises(ReplyUnusable) as raised:
        at(serve(reply_of("200 OK", body))).poll("batch_1")
    assert raised.value.retryable


def test_a_redirect_is_not_followed(serve: Callable[[bytes | None], OneReply]) -> None:
    elsewhere = serve(reply_of("200 OK", b"{}"))
    server = serve(reply_of("307 Away", b"", f"location: http://127.0.0.1:{elsewhere.port}/v1/batches"))
    with pytest.raises(BatchInterfaceClosed, match=r"see models\.fast\.api_base"):
        at(server).create("dspyq-1", file_id="file-1")
    assert elsewhere.heads == []


def test_an_endpoint_without_a_batch_interface_names_the_setting(endpoint: Endpoint) -> None:
    provider = client(endpoint, "openai", prefix="/none")
    with pytest.raises(BatchInterfaceClosed, match=r"set models\.fast\.batch to off"):
        provider.upload("dspyq-1", lines_of("openai", 1))
    with pytest.raises(BatchInterfaceClosed, match=r"set models\.fast\.batch to off"):
        provider.create("dspyq-1", file_id="file-1")


def test_a_billing_limit_closes_the_interface_whatever_its_status(serve: Callable[[bytes | None], OneReply]) -> None:
    body = b'{"error": {"code": "billing_hard_limit_reached", "message": "m", "type": "invalid_request_error"}}'
    with pytest.raises(BatchInterfaceClosed, match=r"billing \(HTTP 400 billing_hard_limit_reached\)"):
        at(serve(reply_of("400 Bad", body))).create("dspyq-1", file_id="file-1")


def test_each_url_has_the_query_of_the_api_base(serve: Callable[[bytes | None], OneReply]) -> None:
    server = serve(reply_of("200 OK", b'{"id": "batch_1", "status": "in_progress", "data": []}'))
    provider = at(server, query="api-version=2025-04-01")
    provider.poll("batch_1")
    provider.find("dspyq-1", 0, 1)
    assert [head.partition(" HTTP")[0] for head in server.heads] == [
        "GET /v1/batches/batch_1?api-version=2025-04-01",
        "GET /v1/batches?api-version=2025-04-01&limit=100",
    ]


def test_a_proxy_gets_the_whole_url_and_its_own_password(serve: Callable[[bytes | None], OneReply]) -> None:
    proxy = serve(reply_of("200 OK", b'{"id": "batch_1"}'))
    address = f"http://user:p%40ss@127.0.0.1:{proxy.port}"
    access = ProviderAccess("openai-chat", "http://provider.test/v1", proxy=address)
    provider_for("openai", access).poll("batch_1")
    (head,) = proxy.heads
    assert head.startswith("GET http://provider.test/v1/batches/batch_1 HTTP/1.1\r\n")
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'user:p@ss').decode()}\r\n" in head


def test_a_proxy_tunnels_to_https(serve: Callable[[bytes | None], OneReply]) -> None:
    proxy = serve(reply_of("403 Forbidden", b""))
    access = ProviderAccess("openai-chat", "https://provider.test/v1", proxy=f"http://127.0.0.1:{proxy.port}")
    with pytest.raises(ProviderBusy, match="no connection"):
        provider_for("openai", access).create("dspyq-1", file_id="file-1")
    assert proxy.heads[0].startswith("CONNECT provider.test:443 HTTP/1.")


def test_ids_of_a_provider_cannot_leave_their_path(serve: Callable[[bytes | None], OneReply]) -> None:
    server = serve(reply_of("200 OK", b'{"id": "x"}'))
    at(server).poll("../files?x=1")
    assert server.heads[0].startswith("GET /v1/batches/..%2Ffiles%3Fx%3D1 HTTP/1.1")


def test_an_error_shows_of_a_code_only_harmless_signs(serve: Callable[[bytes | None], OneReply]) -> None:
    body = (
        b'{"error": {"code": "no <b>user</b> text\\n' + b"x" * 200 + b'", "message": "the prompt was: secret plans"}}'
    )
    with pytest.raises(BatchInterfaceError) as raised:
        at(serve(reply_of("400 Bad", body))).create("dspyq-1", file_id="file-1")
    assert "secret plans" not in str(raised.value)
    assert "<" not in str(raised.value)
    assert len(str(raised.value)) < 200


def test_a_key_that_results_echo_is_removed(endpoint: Endpoint, own_secrets: None) -> None:
    del own_secrets
    process_secrets().learn(KEY, is_sent=True)
    endpoint.script(content=f"your key is {KEY}", lane="batch")
    provider = client(endpoint, "openai")
    (line,) = results(provider, ended(provider, submit(provider, "openai", "dspyq-1", 1).id)).values()
    assert KEY not in str(line.body)
    assert SECRET in str(line.body)


def test_a_line_shows_no_text_of_a_user(endpoint: Endpoint) -> None:
    provider = client(endpoint, "openai")
    batch = ended(provider, submit(provider, "openai", "dspyq-1", 1).id)
    (line,) = results(provider, batch).values()
    assert "question" in str(line.body)
    assert "question" not in f"{line} {batch}"


@pytest.mark.parametrize("is_chunked", [False, True])
def test_lines_of_any_length_come_whole_in_pieces_of_any_size(
    serve: Callable[[bytes | None], OneReply], *, is_chunked: bool
) -> None:
    texts = [b"a" * 300_000, b"", b"b", b"c" * 65_536, b" ", b"last"]
    body = b"\n".join(texts)
    reply = reply_of("200 OK", body)
    if is_chunked:
        chunks = [body[start : start + 1000] for start in range(0, len(body), 1000)]
        coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        reply = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"
    http = ProviderHttp(ProviderAccess("openai-chat", f"http://127.0.0.1:{serve(reply).port}/v1"))
    assert list(http.lines("/x")) == [text for text in texts if text.strip()]


def test_a_body_in_chunks_that_ends_early_is_unusable(serve: Callable[[bytes | None], OneReply]) -> None:
    server = serve(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc\nd\r\n")
    http = ProviderHttp(ProviderAccess("openai-chat", f"http://127.0.0.1:{server.port}/v1"))
    with pytest.raises(ReplyUnusable, match="cut short"):
        list(http.lines("/x"))


def test_lines_wait_in_a_file_that_no_other_user_can_read_and_no_name_leads_to(endpoint: Endpoint) -> None:
    seen: list[int] = []

    def lines() -> Iterator[ShipmentLine]:
        for custom_id, body in lines_of("openai", 2):
            for link in Path("/proc/self/fd").iterdir():
                target = str(link.readlink()) if link.is_symlink() else ""
                if target.startswith(tempfile.gettempdir()) and "(deleted)" in target:
                    seen.append(link.stat().st_mode & 0o077)
            yield custom_id, body

    before = set(Path(tempfile.gettempdir()).glob("dspyq-shipment-*"))
    client(endpoint, "openai").upload("dspyq-1", lines())
    assert seen
    assert set(seen) == {0}
    assert set(Path(tempfile.gettempdir()).glob("dspyq-shipment-*")) == before


@pytest.mark.parametrize("custom_id", ["", "a" * 65, "a b", 'a"', "ä"])
def test_a_custom_id_that_a_provider_would_refuse_is_refused_before_anything_is_sent(
    endpoint: Endpoint, custom_id: str
) -> None:
    with pytest.raises(ValueError, match="custom id"):
        client(endpoint, "openai").upload("dspyq-1", [(custom_id, b"{}")])
    with pytest.raises(ValueError, match="at least one line"):
        client(endpoint, "anthropic").create("dspyq-1", lines=[])
    assert endpoint.batches.counts().creations == 0


def test_a_protocol_must_be_known_and_fit_the_models_live_calls(endpoint: Endpoint) -> None:
    with pytest.raises(ConfigurationError, match=r"models\.fast\.batch: bedrock is none of openai, anthropic, gemini"):
        provider_for("bedrock", access_to(endpoint, "openai"))
    with pytest.raises(ConfigurationError, match="anthropic takes requests of anthropic, not openai-chat"):
        provider_for("anthropic", access_to(endpoint, "openai"))


def test_an_upload_address_elsewhere_gets_no_key(serve: Callable[[bytes | None], OneReply]) -> None:
    elsewhere = serve(reply_of("200 OK", b"{}"))
    server = serve(reply_of("200 OK", b"", f"x-goog-upload-url: http://127.0.0.1:{elsewhere.port}/steal"))
    access = ProviderAccess("gemini", f"http://127.0.0.1:{server.port}/v1beta", (("x-goog-api-key", KEY),))
    with pytest.raises(ReplyUnusable, match="no address of the endpoint"):
        provider_for("gemini", access).upload("dspyq-1", lines_of("gemini", 1))
    assert elsewhere.heads == []


def test_a_port_that_is_closed_is_no_creation() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    access = ProviderAccess("openai-chat", f"http://127.0.0.1:{port}/v1")
    with pytest.raises(ProviderBusy, match="no connection"):
        provider_for("openai", access).create("dspyq-1", file_id="file-1")


def test_each_request_has_the_credentials_of_its_time(serve: Callable[[bytes | None], OneReply]) -> None:
    server = serve(reply_of("200 OK", b'{"id": "batch_1"}'))
    numbers = iter(range(1, 10))

    def renew() -> ProviderAccess:
        return replace(access, headers=(("authorization", f"Bearer token-{next(numbers)}"),))

    access = ProviderAccess("openai-chat", f"http://127.0.0.1:{server.port}/v1")
    provider = provider_for("openai", access, renew)
    for _ in range(2):
        provider.poll("batch_1")
    assert [head.partition("token-")[2][0] for head in server.heads] == ["1", "2"]


def test_credentials_that_cannot_be_read_close_the_interface(endpoint: Endpoint) -> None:
    def renew() -> ProviderAccess:
        raise OSError("the token of user@example.com has expired")

    provider = provider_for("openai", access_to(endpoint, "openai"), renew)
    with pytest.raises(BatchInterfaceClosed, match=r"cannot be read \(OSError\); see models\.fast\.api_key_env$"):
        provider.create("dspyq-1", file_id="file-1")
    assert endpoint.batches.counts().creations == 0
