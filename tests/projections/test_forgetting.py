"""Rows that hold an erased person's texts are found whichever came first, the text or the erasure."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from domain.account import AccountErased, AccountRegistered
from projections import accounts, chat_log, forgetting, moderation
from projections.checkpoints import Pool
from projections.registry import PROJECTIONS
from projections.runner import Runner
from tests.eventstore.conveyor import until
from tests.projections.model import MemoryLog, event_of, fresh

HELD = (accounts.PROJECTION, chat_log.PROJECTION, moderation.PROJECTION)


def test_every_personal_column_names_a_column_that_says_whose_it_is() -> None:
    named = [(table, *pair) for one in PROJECTIONS.values() for table in one.tables for pair in table.personal.items()]
    assert (chat_log.MESSAGES, "text", "author_id") in named
    for table, column, person in named:
        assert {column, person} <= {*table.key, *table.columns}


async def _applied(pool: Pool, log: MemoryLog) -> None:
    for projection in HELD:
        runner = Runner(projection, log, pool)
        await runner.open()
        await runner.catch_up(log.heads())


async def _texts(pool: Pool) -> dict[str, list[str]]:
    rows = await pool.fetch(
        "SELECT author_id, array_agg(text ORDER BY position) AS texts FROM p_chat_log.messages GROUP BY author_id"
    )
    return {row["author_id"]: row["texts"] for row in rows}


def _say(log: MemoryLog, person: str, number: int) -> None:
    stream, event = event_of("post", "c1", person, number)
    log.append(stream, "c1", event)


async def _with_ann_and_bob(pool: Pool) -> MemoryLog:
    for projection in HELD:
        await fresh(pool, projection)
    log = MemoryLog()
    for person in ("ann", "bob"):
        registered = AccountRegistered(account_id=person, username=person, display_name=person)
        log.append(f"account-{person}", person, registered)
        _say(log, person, 1)
    return log


async def test_texts_before_and_after_the_erasure_are_taken_out_and_nobody_elses(pool: Pool) -> None:
    log = await _with_ann_and_bob(pool)
    log.append("account-ann", "ann", AccountErased(account_id="ann"))
    await _applied(pool, log)
    await forgetting.forget(pool)
    assert await _texts(pool) == {"ann": ["[erased]"], "bob": ["text 1"]}
    # Written by another process that still had the key.
    _say(log, "ann", 2)
    await _applied(pool, log)
    assert (await _texts(pool))["ann"] == ["[erased]", "text 2"]
    await forgetting.forget(pool)
    assert await _texts(pool) == {"ann": ["[erased]", "[erased]"], "bob": ["text 1"]}


@pytest.mark.parametrize(("ago", "left"), [(timedelta(minutes=5), "[erased]"), (timedelta(days=5), "text 1")])
async def test_erasures_of_long_ago_are_not_looked_at_for_ever(pool: Pool, ago: timedelta, left: str) -> None:
    log = await _with_ann_and_bob(pool)
    log.append("account-ann", "ann", AccountErased(account_id="ann"))
    await _applied(pool, log)
    await pool.execute(
        "UPDATE p_accounts.accounts SET erased_at = $1 WHERE account_id = 'ann'", datetime.now(UTC) - ago
    )
    await forgetting.forget(pool, late_s=forgetting.AGAIN_S)
    assert (await _texts(pool))["ann"] == [left]


async def test_it_begins_with_everybody_and_outlives_a_read_model_that_is_away(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "EVERY_S", 0.02)
    log = await _with_ann_and_bob(pool)
    log.append("account-ann", "ann", AccountErased(account_id="ann"))
    await _applied(pool, log)
    await pool.execute("UPDATE p_accounts.accounts SET erased_at = '2020-01-01' WHERE account_id = 'ann'")
    await pool.execute("ALTER SCHEMA p_chat_log RENAME TO p_chat_log_away")
    running = asyncio.create_task(forgetting.run(pool))
    await asyncio.sleep(0.1)
    await pool.execute("ALTER SCHEMA p_chat_log_away RENAME TO p_chat_log")

    async def forgotten() -> bool:
        return (await _texts(pool))["ann"] == ["[erased]"]

    await until(forgotten)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
