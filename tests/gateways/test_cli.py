"""The command line beside a database with known events in it: what it prints and with which code it ends."""

import asyncio
import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from argon2 import PasswordHasher
from typer.testing import CliRunner, Result

from commands.accounts import RevokeRole
from commands.bus import handle
from commands.context import Call, Context, Done
from domain.account import AccountRegistered, DisplayNameChanged
from domain.payment import PaymentCaptured, PaymentFailed
from domain.shared import Money
from eventstore.port import Append, StreamWrite
from gateways import bootstrap
from gateways.admin_cli import ROLES_LOCK
from gateways.cli import app
from gateways.roles import ROLES
from tests.stores_postgres import MASTER_KEY, postgres_store


class Beside:
    """`tallylight …` in the environment of one database."""

    def __init__(self, dsn: str, keys_dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self.keys_dsn = keys_dsn
        self.environment = {
            "TALLYLIGHT_DATA_DIR": str(folder),
            "TALLYLIGHT_DSN": dsn,
            "TALLYLIGHT_KEYS_DSN": keys_dsn,
            "TALLYLIGHT_MASTER_KEY": base64.urlsafe_b64encode(MASTER_KEY).decode(),
        }

    async def run(self, *arguments: str, typed: str = "") -> Result:
        # In a thread: the commands bring an event loop of their own.
        return await asyncio.to_thread(CliRunner().invoke, app, arguments, input=typed, env=self.environment)

    async def execute(self, sql: str) -> None:
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()


@pytest.fixture
async def beside(database: str, keys_database: str, tmp_path: Path) -> Beside:
    """Somebody registered and paid for a subscription."""
    registered = AccountRegistered(account_id="a1", username="ada", display_name="Ada L", email="ada@example.org")
    captured = PaymentCaptured(
        payment_id="p1",
        channel_id="c1",
        account_id="a1",
        purpose="subscription",
        amount=Money(amount_minor=500, currency="EUR"),
        fee=Money(amount_minor=30, currency="EUR"),
        provider="sandbox",
        provider_ref="r1",
    )
    async with postgres_store(database, keys_database) as store:
        for stream, key, event in (("account-a1", "a1", registered), ("payment-p1", "c1", captured)):
            await store.append(Append(uuid4(), [StreamWrite(stream, key, [event])], actor="a1"))
    return Beside(database, keys_database, tmp_path)


async def test_a_stream_is_shown_with_personal_fields_closed(beside: Beside) -> None:
    shown = await beside.run("events", "show", "account-a1")
    assert shown.exit_code == 0
    assert "account-a1@1 account.AccountRegistered" in shown.output
    assert "username=ada" in shown.output
    assert "display_name=[personal] email=[personal]" in shown.output
    assert "by=a1" in shown.output


async def test_personal_fields_are_opened_only_when_asked_for(beside: Beside) -> None:
    shown = await beside.run("events", "show", "account-a1", "--personal")
    assert 'display_name="Ada L" email=ada@example.org' in shown.output


async def test_a_stream_without_events_ends_with_1(beside: Beside) -> None:
    assert (await beside.run("events", "show", "account-nobody")).exit_code == 1


async def test_the_tail_merges_the_shards_by_time(beside: Beside) -> None:
    shown = await beside.run("events", "tail", "--no-follow", "--json")
    topics = [json.loads(line)["topic"] for line in shown.output.splitlines()]
    assert topics == ["account.AccountRegistered", "payment.PaymentCaptured"]


async def test_the_tail_keeps_to_the_newest_and_to_a_category(beside: Beside) -> None:
    newest = await beside.run("events", "tail", "--no-follow", "-n", "1")
    assert "payment.PaymentCaptured" in newest.output
    assert "account.AccountRegistered" not in newest.output
    lifecycle = await beside.run("events", "tail", "--no-follow", "--category", "lifecycle")
    assert "payment.PaymentCaptured" not in lifecycle.output
    assert "account.AccountRegistered" in lifecycle.output


async def test_the_newest_of_a_category_are_found_however_much_of_others_came_after(beside: Beside) -> None:
    stream = StreamWrite("account-a1", "a1", [DisplayNameChanged(account_id="a1", display_name="Ada")])
    async with postgres_store(beside.dsn, beside.keys_dsn) as store:
        paid = PaymentFailed(payment_id="p2", channel_id="a1", account_id="a1", code="card_declined")
        await store.append(Append(uuid4(), [StreamWrite("payment-p2", "a1", [paid])]))
        for _ in range(9):
            await store.append(Append(uuid4(), [stream]))
    for last, topics in (
        ("1", ["payment.PaymentFailed"]),
        ("5", ["payment.PaymentCaptured", "payment.PaymentFailed"]),
        ("0", []),
    ):
        shown = await beside.run("events", "tail", "--no-follow", "--json", "--category", "money", "-n", last)
        assert [json.loads(line)["topic"] for line in shown.output.splitlines()] == topics


async def test_a_category_there_is_not_is_refused_with_those_there_are(beside: Beside) -> None:
    refused = await beside.run("events", "tail", "--no-follow", "--category", "chats")
    assert refused.exit_code == 2
    said = " ".join(refused.output.replace("│", " ").split())
    assert "there is no category 'chats'; there are lifecycle, chat, media, money" in said


async def test_the_last_administrator_keeps_the_role(beside: Beside) -> None:
    for name in ("grace", "margaret"):
        made = await beside.run("admin", "create", name, "--password-stdin", typed="8 chars!\n")
        assert made.exit_code == 0, made.output
    assert (await beside.run("admin", "revoke", "grace", "admin")).exit_code == 0
    last = await beside.run("admin", "revoke", "margaret", "admin")
    assert (last.exit_code, "last administrator" in last.output) == (1, True), last.output
    assert "grace had no role admin" in (await beside.run("admin", "revoke", "grace", "admin")).output


async def test_of_two_administrators_revoked_at_once_one_stays(beside: Beside) -> None:
    for name in ("grace", "margaret"):
        assert (await beside.run("admin", "create", name, "--password-stdin", typed="8 chars!\n")).exit_code == 0
    connection = await asyncpg.connect(beside.dsn)
    # We are the first of the two: what we leave is what the second must judge by.
    await connection.execute("SELECT pg_advisory_lock($1)", ROLES_LOCK)
    second = asyncio.create_task(beside.run("admin", "revoke", "grace", "admin"))
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    while not second.done() and not await connection.fetchval(waiting):
        await asyncio.wait({second}, timeout=0.02)
    async with postgres_store(beside.dsn, beside.keys_dsn) as store:
        account = await store.index_row("names", {"name": "margaret", "use": "account"})
        assert account is not None
        context = Context(store, bootstrap.clock, bootstrap.NoProvider())
        ours = await handle(context, Call(uuid4()), RevokeRole(account["account_id"], "admin", trusted=True))
        assert isinstance(ours, Done)
    await connection.close()
    assert (await second).exit_code == 1


def test_the_help_of_role_names_every_role() -> None:
    said = CliRunner().invoke(app, ["role", "--help"]).output
    for name in (*ROLES, "front"):
        assert re.search(rf"\b{name}\b", said), name


def test_a_tail_that_follows_prints_what_comes_and_ends_with_ctrl_c_in_order(beside: Beside) -> None:
    command = [sys.executable, "-m", "gateways.cli", "events", "tail", "-n", "1"]
    with subprocess.Popen(
        command, env=os.environ | beside.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "payment.PaymentCaptured" in process.stdout.readline()
        process.send_signal(2)
        assert process.stderr.read() == ""
    assert process.returncode == 0


async def test_the_first_administrator_is_registered_and_the_second_is_made_of_an_account(beside: Beside) -> None:
    first = await beside.run("admin", "create", "Grace", "--password-stdin", typed="correct horse battery\n")
    assert first.exit_code == 0, first.output
    assert "grace was registered as an administrator" in first.output
    again = await beside.run("admin", "create", "grace")
    assert "grace is an administrator now" in again.output
    shown = await beside.run("events", "tail", "--no-follow", "--json")
    topics = [json.loads(line)["topic"] for line in shown.output.splitlines()]
    assert topics.count("account.RoleGranted") == 1
    connection = await asyncpg.connect(beside.dsn)
    stored = await connection.fetchval("SELECT password_hash FROM credentials WHERE username = 'grace'")
    await connection.close()
    assert PasswordHasher().verify(stored, "correct horse battery")


@pytest.mark.parametrize(("name", "password"), [("x", "correct horse battery"), ("grace", "short")])
async def test_an_administrator_with_no_proper_name_or_password_is_refused(
    beside: Beside, name: str, password: str
) -> None:
    refused = await beside.run("admin", "create", name, "--password-stdin", typed=password + "\n")
    assert refused.exit_code == 1
    assert "Traceback" not in refused.output


async def test_projections_are_listed_and_missing_ones_end_with_1(beside: Beside) -> None:
    shown = await beside.run("projections", "status")
    assert shown.exit_code == 1
    assert any(line.split()[:2] == ["ledger", "missing"] for line in shown.output.splitlines())


async def test_a_rebuild_makes_a_projection_live(beside: Beside) -> None:
    rebuilt = await beside.run("projections", "rebuild", "ledger")
    assert rebuilt.exit_code == 0
    assert "ledger: 1 events" in rebuilt.output
    shown = await beside.run("projections", "status", "--json")
    by_name = {told["name"]: told for told in map(json.loads, shown.output.splitlines())}
    assert by_name["ledger"]["state"] == "live"
    assert by_name["ledger"]["lag"] == 0


async def test_an_unknown_projection_is_answered_with_those_there_are(beside: Beside) -> None:
    answer = await beside.run("projections", "rebuild", "leger")
    assert answer.exit_code == 2
    assert "ledger" in answer.output


async def test_books_that_agree_with_the_events_verify(beside: Beside) -> None:
    await beside.run("projections", "rebuild", "ledger")
    verified = await beside.run("ledger", "verify")
    assert (verified.exit_code, verified.output) == (0, "3 postings of 1 events recomputed, 0 differences\n")


@pytest.mark.parametrize(
    ("tampering", "told"),
    [
        ("UPDATE p_ledger.postings SET amount_minor = amount_minor + 1 WHERE line = 0", "off balance by 1 EUR"),
        ("DELETE FROM p_ledger.postings", "booked is nothing"),
        (
            "INSERT INTO p_ledger.postings SELECT shard, position + 1000, line, stream, version, topic, account, currency,"
            " amount_minor, booked_at FROM p_ledger.postings",
            "no event says so",
        ),
        ("UPDATE p_ledger.balances SET credit_minor = credit_minor + 1", "balance of"),
    ],
)
async def test_books_that_were_tampered_with_do_not(beside: Beside, tampering: str, told: str) -> None:
    await beside.run("projections", "rebuild", "ledger")
    await beside.execute(tampering)
    verified = await beside.run("ledger", "verify")
    assert verified.exit_code == 1
    assert told in verified.output


async def test_events_the_ledger_has_not_reached_are_lag_and_no_difference(beside: Beside) -> None:
    await beside.run("projections", "rebuild", "ledger")
    await beside.execute(
        "UPDATE p_ledger.checkpoints SET position = 0; DELETE FROM p_ledger.postings; DELETE FROM p_ledger.balances"
    )
    verified = await beside.run("ledger", "verify")
    assert verified.exit_code == 0
    assert "1 more wait for the projection" in verified.output


async def test_the_trial_balance_sums_to_the_same_on_both_sides(beside: Beside) -> None:
    await beside.run("projections", "rebuild", "ledger")
    shown = await beside.run("ledger", "trial-balance")
    assert shown.exit_code == 0
    assert shown.output.splitlines()[-1].split() == ["total", "500", "500", "EUR"]
    assert "liabilities:deferred_revenue:c1" in shown.output


async def test_the_trial_balance_of_a_day_before_the_first_entry_is_empty(beside: Beside) -> None:
    await beside.run("projections", "rebuild", "ledger")
    shown = await beside.run("ledger", "trial-balance", "--as-of", "2020-01-01", "--json")
    assert (shown.exit_code, shown.output) == (0, "")


async def test_a_ledger_that_was_never_built_is_said_so(beside: Beside) -> None:
    answer = await beside.run("ledger", "verify")
    assert answer.exit_code == 2
    assert "no projector has run" in answer.output


def _tallylight(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TALLYLIGHT_")}
    return subprocess.run(
        [sys.executable, "-m", "gateways.cli", *arguments],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_without_a_running_stack_a_command_says_where_it_looked(tmp_path: Path) -> None:
    answer = _tallylight("events", "tail", TALLYLIGHT_DATA_DIR=str(tmp_path))
    assert answer.returncode == 2
    assert f"Nothing runs on {tmp_path}" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_role_without_its_settings_names_them(tmp_path: Path) -> None:
    answer = _tallylight("role", "sandbox", TALLYLIGHT_DATA_DIR=str(tmp_path))
    assert (answer.returncode, answer.stderr) == (2, "TALLYLIGHT_SANDBOX_SECRET: Field required\n")


def test_an_unknown_role_is_answered_with_those_there_are() -> None:
    answer = _tallylight("role", "nonsense")
    assert answer.returncode == 2
    assert "sandbox" in answer.stderr


def test_help_is_there_without_importing_the_engines() -> None:
    code = (
        "import sys; from gateways.cli import main; sys.argv = ['tallylight', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'asyncpg', 'psycopg', 'fastapi', 'faust', 'pydantic', 'aiokafka'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=30)


def test_the_doctor_finds_this_machine_well_and_names_what_is_not(tmp_path: Path) -> None:
    well = _tallylight("doctor", TALLYLIGHT_DATA_DIR=str(tmp_path), TALLYLIGHT_HTTP_PORT="0", TALLYLIGHT_HTTPS_PORT="0",
                       TALLYLIGHT_RTMP_PORT="0")  # fmt: skip
    assert (well.returncode, "FAIL" in well.stdout) == (0, False), well.stdout
    (tmp_path / "no-ffmpeg").write_text("#!/bin/sh\necho nothing\n")
    (tmp_path / "no-ffmpeg").chmod(0o755)
    ill = _tallylight("doctor", TALLYLIGHT_DATA_DIR=str(tmp_path), TALLYLIGHT_FFMPEG=str(tmp_path / "no-ffmpeg"))
    assert ill.returncode == 1
    assert "FAIL  FFmpeg" in ill.stdout
    assert "libx264" in ill.stdout
