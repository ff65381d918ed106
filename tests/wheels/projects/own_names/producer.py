"""The project's own producer, with the project's own configuration."""

import json

import config
from workers.celery import app

import dspyq
from dspyq import predict


def main() -> None:
    answer = predict.delay(question="Whose names are these?").get(timeout=30).answer
    print(json.dumps({"dspyq": dspyq.__file__, "answers": [answer], "names": [config.NAME, app.main]}))


if __name__ == "__main__":
    main()
