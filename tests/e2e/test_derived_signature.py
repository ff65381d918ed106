"""A worker whose configuration leaves a class's signature out serves producers that state it."""


def test_a_worker_that_derives_a_signature_answers_a_producer_that_states_it(
    worker, settings_file, run_producer, dspyq, endpoint
):
    own = {"class": "tests.programs.sample_classes:TwoSteps"}
    derived = settings_file({"programs": {"qa": {**own, "signature": None}}})
    stated = settings_file({"programs": {"qa": {**own, "signature": "question -> answer"}}})
    worker(derived)

    def ask():
        from dspyq import predict

        return predict.delay(question="hi").get(timeout=20).answer

    assert run_producer(ask, stated) == "echo:echo:hi"
    assert endpoint.calls() == 2
    refused = dspyq("predict", "question=hi", settings=derived, ok=False).stderr
    assert refused.startswith("dspyq: programs.qa.signature: missing: a producer does not load")
    assert len(refused.splitlines()) == 1
