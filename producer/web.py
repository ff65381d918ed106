"""A web handler: ``uvicorn producer.web:api``, with FastAPI."""

from __future__ import annotations

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from dspyq.errors import DspyqError, InvalidRequest
from producer import predict

api = FastAPI()


class Triage(BaseModel):
    """A ticket's urgency and team, as the page shows them."""

    urgency: str
    team: str
    cached: bool


@api.get("/triage")
async def triage(ticket: str, customer: str | None = None) -> Triage:
    """Triage a ticket; a customer stays on one variant."""
    try:
        prediction = await predict.ask({"ticket": ticket}, program="triage", unit=customer)
    except InvalidRequest as error:
        raise HTTPException(422, str(error)) from error
    except DspyqError as error:  # no text of the customer's in the reply
        raise HTTPException(503 if error.retryable else 500, type(error).__name__) from error
    return Triage(urgency=prediction.urgency, team=prediction.team, cached=prediction.metadata.cached)
