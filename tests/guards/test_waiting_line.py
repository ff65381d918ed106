"""The line of threads that wait for money."""

import threading

from dspyq.guards.waiting_line import Ticket, WaitingLine


def test_the_first_polls_and_the_others_wait_until_it_leaves():
    line = WaitingLine()
    first, second = Ticket(line, 1), Ticket(line, 1)
    assert first.reach_front(0)
    assert second.must_wait
    assert not second.reach_front(0.01)
    first.leave()
    assert second.reach_front(0)
    assert not second.must_wait


def test_no_thread_waits_with_an_empty_line():
    assert not Ticket(WaitingLine(), 1).must_wait


def test_a_ticket_with_more_turns_stands_before_others_except_the_first():
    line = WaitingLine()
    places = [Ticket(line, turns) for turns in (1, 1, 3, 2, 3)]
    for place in places:
        place.reach_front(0)
    order = []
    for _ in places:
        (front,) = [place for place in places if place.reached_front.is_set()]
        order.append(places.index(front))
        front.leave()
    assert order == [0, 2, 4, 3, 1]


def test_one_that_gave_up_leaves_no_gap():
    line = WaitingLine()
    with line.place(1) as first, line.place(1) as third:
        first.reach_front(0)
        with line.place(1) as second:
            second.reach_front(0)
            third.reach_front(0)
        first.leave()
        assert third.reach_front(0)


def test_all_threads_come_to_the_front():
    line, seen = WaitingLine(), []

    def stand(number):
        with line.place(1) as place:
            assert place.reach_front(10)
            seen.append(number)

    threads = [threading.Thread(target=stand, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(seen) == list(range(50))


def test_a_nudge_ends_the_pause_of_the_first():
    line = WaitingLine()
    first = Ticket(line, 1)
    first.reach_front(0)
    line.nudge()
    first.pause(60)
    assert not first.nudged.is_set()
