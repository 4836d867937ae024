"""asyncio's threads are the arena's where the user says so."""

from __future__ import annotations

from fresh import check_fresh

LOOP = """
import asyncio, contextvars, threading, time
from concurrent.futures import ThreadPoolExecutor
import composable_threads as c
from composable_threads import _native
_native.configure(2)

def name():
    return threading.current_thread().name

def run(main, executor=None):
    async def start():
        asyncio.get_running_loop().set_default_executor(executor or c.Executor())
        return await main()
    return asyncio.run(start())
"""


def test_to_thread_runs_in_the_arena_with_the_callers_context():
    code = """
variable = contextvars.ContextVar("variable")

async def main():
    variable.set("the caller's")
    names = await asyncio.gather(*[asyncio.to_thread(name) for _ in range(20)])
    assert all(name.startswith("composable-") for name in names), names
    assert await asyncio.to_thread(variable.get) == "the caller's"
    assert await asyncio.get_running_loop().run_in_executor(None, pow, 2, 10) == 1024
    try:
        await asyncio.to_thread(int, "x")
    except ValueError as error:
        return str(error)

print(run(main))
"""
    assert "invalid literal" in check_fresh(LOOP + code)


def test_the_default_of_workers_suffices_for_what_blocks():
    # As many as the stock default has on two CPUs; what sets the event waits behind those that wait for it.
    code = """
async def main():
    event = threading.Event()
    waits = [asyncio.to_thread(event.wait, 50) for _ in range(5)]
    return (await asyncio.gather(*waits, asyncio.to_thread(event.set)))[:5]

assert run(main, ThreadPoolExecutor(6)) == [True] * 5
assert run(main) == [True] * 5
"""
    check_fresh(LOOP + code)


def test_a_cancelled_call_that_has_not_begun_never_runs():
    code = """
ran = []

async def main():
    loop, gate = asyncio.get_running_loop(), threading.Event()
    busy = loop.run_in_executor(None, gate.wait, 50)
    queued = loop.run_in_executor(None, ran.append, "never")
    await asyncio.sleep(0)
    queued.cancel()
    gate.set()
    await busy
    try:
        await queued
    except asyncio.CancelledError:
        return "cancelled"

print(run(main, c.Executor(1)), ran)
"""
    assert check_fresh(LOOP + code).strip() == "cancelled []"


def test_the_end_of_the_loop_waits_for_what_was_begun_and_closes_the_executor():
    code = """
done, executor = [], c.Executor(2)

def slow():
    time.sleep(0.3)
    done.append(1)

async def main():
    asyncio.get_running_loop().run_in_executor(None, slow)

run(main, executor)
try:
    executor.submit(abs, 1)
except RuntimeError as error:
    print(done, error)
"""
    assert check_fresh(LOOP + code).strip() == "[1] cannot schedule new futures after shutdown"


def test_tasks_of_the_arena_inside_and_beside_the_loop():
    code = """
import joblib, dask

def calls():
    return sum(joblib.Parallel(2, backend="composable")(joblib.delayed(abs)(-i) for i in range(10)))

def graph():
    return dask.compute(sum(dask.delayed(abs)(-i) for i in range(10)), scheduler="composable")[0]

async def main():
    found = await asyncio.gather(*[asyncio.to_thread(work) for work in (calls, graph) * 8])
    return found

assert run(main) == [45] * 16
assert c.info()["peak_running"] <= 2, c.info()["peak_running"]
"""
    check_fresh(LOOP + code)


def test_an_activated_program_needs_nothing():
    code = """
async def main():
    return await asyncio.gather(*[asyncio.to_thread(name) for _ in range(6)])

with c.activate():
    names = asyncio.run(main())
assert all(name.startswith("composable-") for name in names), names
"""
    check_fresh(LOOP + code)
