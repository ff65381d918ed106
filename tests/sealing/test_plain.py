"""Without ``[encryption]`` nothing of sealing is loaded, and what is stored are the bytes of before."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dspyq.store.content import Kind, Plain, process_codec


@pytest.mark.journey
def test_a_producer_and_a_worker_without_encryption_load_no_cryptography():
    code = (
        "import sys; from dspyq import predict; import dspyq.cli.main, dspyq.worker.lifecycle, dspyq.batch.run;"
        "from dspyq.store.content import process_codec; process_codec();"
        "unwanted = {'cryptography.hazmat.primitives.ciphers.aead', 'dspyq.sealing.envelope', 'dspyq.sealing.codec'};"
        "assert not unwanted & sys.modules.keys(), unwanted & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_content_is_stored_as_it_is(configured):
    del configured
    assert isinstance(process_codec(), Plain)
    assert process_codec().encode(Kind.RESULT, "mine", b"{}", program="qa", tenant="acme") == b"{}"
    assert process_codec().decode(Kind.RESULT, "mine", b"{}") == b"{}"
