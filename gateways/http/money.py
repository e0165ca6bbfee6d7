"""Subscriptions for viewers, and the books for finance."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import AwareDatetime, Field, StringConstraints

from commands.context import Actor, Call
from commands.money import CancelSubscription, Subscribe
from gateways.errors import Problem
from gateways.http.answers import Page, Posting, SubscriptionBought, TrialBalance
from gateways.http.base import (
    TIME_MAX,
    TIME_MIN,
    ApiState,
    Body,
    CommandId,
    Cursor,
    Limit,
    Somebody,
    after,
    channel_id_of,
    moment,
    page,
    perform,
    reading,
    small,
    whole,
)

routes = APIRouter(prefix="/api/v1", tags=["money"])

_books = Depends(reading("ledger"))
Moment = Annotated[Annotated[AwareDatetime, Field(ge=TIME_MIN, le=TIME_MAX)] | None, Query()]


class NewSubscription(Body):
    tier: Annotated[int, Field(ge=1, le=3)] = 1
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = "USD"
    payment_method: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,64}$")] = "pm_ok"


def finance(actor: Somebody) -> Actor:
    if not actor.roles & {"finance", "admin"}:
        raise Problem("forbidden", "The books are for people with the finance role.")
    return actor


@routes.post("/channels/{name}/subscriptions", status_code=201, response_model=SubscriptionBought)
async def subscribe(
    name: str,
    body: NewSubscription,
    response: Response,
    state: ApiState,
    actor: Somebody,
    command_id: CommandId,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> dict[str, Any]:
    """Charged once, however often it is sent: with one Idempotency-Key for one purchase."""
    if idempotency_key is None:
        raise Problem(
            "idempotency_key_required", "Send an Idempotency-Key, the same for every attempt at one purchase."
        )
    channel_id = await channel_id_of(state, name)
    command = Subscribe(channel_id, body.tier, body.currency, body.payment_method)
    done = await perform(state, response, Call(command_id, actor), command)
    return {"id": done.value["subscription_id"], **done.value}


@routes.delete("/subscriptions/{subscription_id}", status_code=204, dependencies=[Depends(reading("subscriptions"))])
async def cancel(
    subscription_id: str, response: Response, state: ApiState, actor: Somebody, command_id: CommandId
) -> None:
    """It runs on to the end of its period."""
    found = await state.read_models.subscription_by_id(subscription_id.replace("\x00", "?"))
    if found is None or found["account_id"] != actor.account_id:
        raise Problem("subscription_not_found", "There is no such subscription of yours.")
    await perform(state, response, Call(command_id, actor), CancelSubscription(found["channel_id"]))


@routes.get("/finance/trial-balance", dependencies=[_books, Depends(finance)], response_model=TrialBalance)
async def trial_balance(state: ApiState, as_of: Moment = None, recorded_as_of: Moment = None) -> dict[str, Any]:
    """Debits and credits of every account, in minor units; each currency's totals are equal."""
    # An event is booked when it is recorded, so the two ask the same of these books.
    bounds = [bound for bound in (as_of, recorded_as_of) if bound is not None]
    items = await state.read_models.trial_balance(min(bounds) if bounds else None)
    totals: dict[str, dict[str, int]] = {}
    for item in items:
        total = totals.setdefault(item["currency"], {"debit_minor": 0, "credit_minor": 0})
        total["debit_minor"] += item["debit_minor"]
        total["credit_minor"] += item["credit_minor"]
    balanced = all(total["debit_minor"] == total["credit_minor"] for total in totals.values())
    return {"items": items, "next": None, "totals": totals, "balanced": balanced}


@routes.get(
    "/finance/accounts/{account}/postings", dependencies=[_books, Depends(finance)], response_model=Page[Posting]
)
async def postings(account: str, state: ApiState, limit: Limit, cursor: Cursor = None) -> dict[str, Any]:
    start = after(cursor, moment, small, whole, small)
    rows = await state.read_models.postings(account.replace("\x00", "?"), start, limit + 1)
    return page(rows, limit, lambda row: [row["booked_at"].isoformat(), row["shard"], row["position"], row["line"]])
