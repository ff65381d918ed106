"""Three requests in one process: views that ask, and one that sends a task to the project's own application."""

import json
import os

import dspyq

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.local")
from config.wsgi import application
from django.test import Client

assert application is not None
client = Client()
pages = [client.get(f"/{page}/", {"question": page}) for page in ("answer", "answer-async", "sum")]
print(json.dumps({"dspyq": dspyq.__file__, "answers": [page.json()["answer"] for page in pages]}))
