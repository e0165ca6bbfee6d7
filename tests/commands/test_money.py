"""A subscription is judged by the time it is: one that has run out can be bought again, by a new purchase only."""

from uuid import uuid4

from commands.context import Call, Done
from commands.money import CancelSubscription, Subscribe
from domain import subscription
from domain.subscription import PERIOD_DAYS, SubscriptionStarted
from tests.commands.world import World


async def test_a_subscription_that_has_run_out_can_be_bought_again() -> None:
    world = World()
    channel_id, _ = await world.channel("ann")
    bob = await world.account("bob")
    first = await world.done(Subscribe(channel_id, 1), bob)
    world.later(days=PERIOD_DAYS, seconds=-1)
    assert await world.refused(Subscribe(channel_id, 1), bob) == "already_subscribed"
    world.later(seconds=1)
    assert await world.refused(CancelSubscription(channel_id), bob) == "subscription_not_found"
    second = await world.done(Subscribe(channel_id, 2), bob)
    assert second.value["payment_id"] != first.value["payment_id"]
    assert len(world.provider.charged) == 2
    started = await world.events(subscription.stream(channel_id, bob.account_id))
    assert [type(event) for event in started] == [SubscriptionStarted, SubscriptionStarted]
    assert await world.refused(Subscribe(channel_id, 1), bob) == "already_subscribed"


async def test_the_same_purchase_sent_after_its_period_buys_nothing_more() -> None:
    world = World()
    channel_id, _ = await world.channel("ann")
    purchase = Call(uuid4(), await world.account("bob"))
    first = await world.do(Subscribe(channel_id, 1), call=purchase)
    world.later(days=PERIOD_DAYS + 1)
    again = await world.do(Subscribe(channel_id, 1), call=purchase)
    assert isinstance(first, Done)
    assert isinstance(again, Done)
    assert again.value == first.value
    assert len(world.provider.charged) == 1
