"""An effect and its key in one transaction, with a real SQLite."""

import sqlite3
import sys
import threading
import types

import pytest

from outlast import NotDone, create_effects_table
from outlast.database import EffectsTable


@pytest.fixture(params=["", None, "IMMEDIATE"], ids=["implicit", "autocommit", "immediate"])
def connect(request, tmp_path):
    def connect():
        return sqlite3.connect(tmp_path / "shop.db", isolation_level=request.param, timeout=5)

    first = connect()
    first.execute("CREATE TABLE bookings (what TEXT)")
    first.commit()
    create_effects_table(first)
    create_effects_table(first)
    first.close()
    return connect


def bookings(connect):
    return [what for (what,) in connect().execute("SELECT what FROM bookings")]


def booking(connection, what, after=lambda: None):
    def book(amount):
        connection.execute("INSERT INTO bookings VALUES (?)", (what,))
        after()
        return {"booked": what, "amount": amount}

    return book


def test_a_repetition_finds_the_first_result_and_does_nothing(connect):
    connection = connect()
    first = EffectsTable(connection).once("ol-1", booking(connection, "a"), (5,))
    assert not connection.in_transaction
    other = connect()
    again = EffectsTable(other).once("ol-1", booking(other, "b"), (5,))
    assert first == again == {"booked": "a", "amount": 5}
    EffectsTable(other).once("ol-2", booking(other, "c"), (5,))
    assert bookings(connect) == ["a", "c"]


def test_what_raises_is_rolled_back_and_may_be_tried_again(connect):
    connection = connect()

    def break_off():
        raise RuntimeError("out of paper")

    with pytest.raises(NotDone, match="rolled back.*out of paper") as caught:
        EffectsTable(connection).once("ol-1", booking(connection, "a", break_off), (5,))
    assert not caught.value.final and bookings(connect) == []
    EffectsTable(connection).once("ol-1", booking(connection, "a"), (5,))
    assert bookings(connect) == ["a"]


def test_a_result_that_is_not_json_is_rolled_back_too(connect):
    connection = connect()
    with pytest.raises(NotDone, match="type object"):
        EffectsTable(connection).once("ol-1", lambda: object(), ())
    EffectsTable(connection).once("ol-1", booking(connection, "a"), (5,))


def test_two_at_the_same_moment_do_it_once(connect):
    results, start = [], threading.Barrier(4)

    def attempt(name):
        connection = connect()
        start.wait(10)
        try:
            results.append(EffectsTable(connection).once("ol-1", booking(connection, name), (1,))["booked"])
        except NotDone:
            results.append(EffectsTable(connection).once("ol-1", booking(connection, name), (1,))["booked"])
        connection.close()

    threads = [threading.Thread(target=attempt, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(results) == 4 and len(set(results)) == 1 and bookings(connect) == results[:1]


def test_a_step_that_commits_by_itself_is_told_so(connect):
    connection = connect()
    with pytest.raises(Exception, match="leave that to Outlast"):
        EffectsTable(connection).once("ol-1", booking(connection, "a", connection.commit), (5,))
    with pytest.raises(Exception, match="its result is not known"):
        EffectsTable(connection).once("ol-1", booking(connection, "a"), (5,))
    assert bookings(connect) == ["a"], "not a second time, whatever else"


def test_a_transaction_of_the_callers_own_is_left_alone(connect):
    connection = connect()
    connection.execute("BEGIN")
    connection.execute("INSERT INTO bookings VALUES ('mine')")
    with pytest.raises(NotDone, match="commit it before") as caught:
        EffectsTable(connection).once("ol-1", booking(connection, "a"), (5,))
    assert caught.value.final and connection.in_transaction
    connection.commit()
    assert bookings(connect) == ["mine"]


def test_a_driver_without_known_parameters_is_refused():
    class Odd:
        __module__ = "odd_driver"

    sys.modules["odd_driver"] = types.ModuleType("odd_driver")
    sys.modules["odd_driver"].paramstyle = "named"
    with pytest.raises(ValueError, match="named"):
        EffectsTable(Odd())
    del sys.modules["odd_driver"]
