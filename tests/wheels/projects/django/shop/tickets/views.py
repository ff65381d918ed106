from django.http import HttpRequest, JsonResponse

from dspyq import predict
from shop.tickets.tasks import summarize


def answer(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"answer": predict.delay(question=request.GET["question"]).get(timeout=30).answer})


async def answer_async(request: HttpRequest) -> JsonResponse:
    prediction = await predict.ask(question=request.GET["question"])
    return JsonResponse({"answer": prediction.answer})


def summary(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"answer": summarize.delay(request.GET["question"]).get(timeout=30)})
