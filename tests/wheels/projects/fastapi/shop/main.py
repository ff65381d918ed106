from fastapi import FastAPI, HTTPException

from dspyq import predict
from dspyq.errors import InvalidRequest

api = FastAPI()


@api.get("/answer")
async def answer(question: str, program: str = "qa") -> dict[str, str]:
    try:
        prediction = await predict.ask({"question": question}, program=program)
    except InvalidRequest as error:
        raise HTTPException(422, str(error)) from error
    return {"answer": prediction.answer}
