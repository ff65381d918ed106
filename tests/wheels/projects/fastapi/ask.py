"""Two requests, and one that can never be served."""

import json

from fastapi.testclient import TestClient

import dspyq
from shop.main import api

with TestClient(api) as client:
    answers = [client.get("/answer", params={"question": question}).json()["answer"] for question in ("a", "b")]
    refused = client.get("/answer", params={"question": "a", "program": "none"}).status_code
print(json.dumps({"dspyq": dspyq.__file__, "answers": answers, "refused": refused}))
