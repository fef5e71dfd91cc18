"""The workers that the SDK's tests kill, stop and drain: `python sdk_programs.py WORKFLOW [LEASE]`.

Every workflow is there twice, sync and async, under names that end so.
"""

import asyncio
import logging
import os
import signal
import sqlite3
import sys

import httpx
import outlast
from outlast import Undo, Worker, aio, approve, keyed, run, sleep, step, this_step, tool, tx, verify, wait_for

DOWNSTREAM = os.environ["DOWNSTREAM"]


def post(path, body=None):
    reply = httpx.post(DOWNSTREAM + path, json=body, headers=this_step().headers, timeout=this_step().remaining)
    return reply.raise_for_status().json()["took"]


async def post_async(path, body=None):
    async with httpx.AsyncClient() as client:
        here = this_step()
        reply = await client.post(DOWNSTREAM + path, json=body, headers=here.headers, timeout=here.remaining)
    return reply.raise_for_status().json()["took"]


def undo(took):
    post("/undo", took)


async def undo_async(took):
    await post_async("/undo", took)


@run(name="three-sync")
def three(input):
    return [step(f"e{n}", post, f"/e{n}", [input, n], effect=keyed(3600), timeout=3) for n in range(3)]


@run(name="three-async")
async def three_async(input):
    return [await aio.step(f"e{n}", post_async, f"/e{n}", [input, n], effect=keyed(3600), timeout=3) for n in range(3)]


@run(name="once-sync")
def once(input):
    return step("mail", post, "/mail", input, effect="once", timeout=2)


@run(name="once-async")
async def once_async(input):
    return await aio.step("mail", post_async, "/mail", input, effect="once", timeout=2)


@run(name="trip-sync")
def trip(input):
    undoing = Undo(undo, effect=keyed(3600), timeout=3)
    step("flight", post, "/flight", "flight", effect=keyed(3600), timeout=3, undo=undoing)
    step("hotel", post, "/hotel", "hotel", effect=keyed(3600), timeout=3, undo=undoing)
    if input == "fail":
        raise RuntimeError("no car")
    return wait_for("go").payload


@run(name="trip-async")
async def trip_async(input):
    undoing = Undo(undo_async, effect=keyed(3600), timeout=3)
    await aio.step("flight", post_async, "/flight", "flight", effect=keyed(3600), timeout=3, undo=undoing)
    await aio.step("hotel", post_async, "/hotel", "hotel", effect=keyed(3600), timeout=3, undo=undoing)
    if input == "fail":
        raise RuntimeError("no car")
    return (await aio.wait_for("go")).payload


@run(name="signals-sync")
def signals(_):
    first = wait_for(["paid", "refused"])
    missing = wait_for("receipt", timeout=0.2)
    sleep(0.2)
    return [first.name, first.payload, missing]


@run(name="signals-async")
async def signals_async(_):
    first = await aio.wait_for(["paid", "refused"])
    missing = await aio.wait_for("receipt", timeout=0.2)
    await aio.sleep(0.2)
    return [first.name, first.payload, missing]


@run(name="approval-sync")
def approval(amount):
    agreed = approve("May we refund this?", {"amount": amount})
    return step("refund", post, "/refund", agreed.arguments, effect=keyed(3600), timeout=3)


@run(name="approval-async")
async def approval_async(amount):
    agreed = await aio.approve("May we refund this?", {"amount": amount})
    return await aio.step("refund", post_async, "/refund", agreed.arguments, effect=keyed(3600), timeout=3)


@run(name="tools-sync")
def tools(order):
    address = tool("look_up", {"order": order})
    return [address["took"], tool("ship", {"order": order}, key=f"ship/{order}")["took"]]


@run(name="tools-async")
async def tools_async(order):
    address = await aio.tool("look_up", {"order": order})
    shipped = await aio.tool("ship", {"order": order}, key=f"ship/{order}")
    return [address["took"], shipped["took"]]


class Shop(sqlite3.Connection):
    """Dies once, right after its commit: the moment at which nobody knows."""

    def commit(self):
        super().commit()
        if not os.path.exists("died"):
            open("died", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)


@run(name="booking-sync")
def booking(what):
    connection = sqlite3.connect("shop.db", factory=Shop)

    def book(what):
        connection.execute("INSERT INTO bookings VALUES (?)", (what,))
        return {"booked": what}

    return step("book", book, what, effect=tx(connection))


@run(name="booking-async")
async def booking_async(what):
    connection = sqlite3.connect("shop.db", factory=Shop)

    def book(what):
        connection.execute("INSERT INTO bookings VALUES (?)", (what,))
        return {"booked": what}

    return await aio.step("book", book, what, effect=tx(connection))


def has_arrived(path, body):
    reply = httpx.get(f"{DOWNSTREAM}/arrived", headers={"x-key": this_step().idempotency_key}).json()
    return reply["found"] or outlast.ABSENT


@run(name="asked-sync")
def asked(input):
    return step("send", post, "/send", input, effect=verify(0.2, has_arrived), timeout=3)


@run(name="tool:pack", queue="packing")
def pack(arguments):
    return {"packed": arguments}


def die_once():
    """Dies between two steps, the first time."""
    if not os.path.exists("died"):
        open("died", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)


def program_sync():
    with outlast.program("nightly"):
        first = step("e0", post, "/e0", "a", effect=keyed(3600))
        asked = [{"role": "user", "content": "How was the day?"}]
        said = run.openai().chat.completions.create(model="agent", messages=asked)
        die_once()
        print("ended", [first, step("e1", post, "/e1", "b", effect="once")], said.id)


async def program_async():
    async with outlast.program("nightly"):
        first = await aio.step("e0", post_async, "/e0", "a", effect=keyed(3600))
        asked = [{"role": "user", "content": "How was the day?"}]
        said = await run.async_openai().chat.completions.create(model="agent", messages=asked)
        die_once()
        print("ended", [first, await aio.step("e1", post_async, "/e1", "b", effect="once")], said.id)


def main(name, lease):
    if name == "program-sync":
        return program_sync()
    if name == "program-async":
        return asyncio.run(program_async())
    workflows = [one for one in globals().values() if isinstance(one, outlast.Workflow) and one.name == name]
    Worker(workflows, lease=float(lease), label=f"test {name}").run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s %(message)s")
    main(*sys.argv[1:])
