"""Commands over a store: who may, what is said, what index rows stand with it, and that sending again says nothing new."""

import asyncio
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest

from commands.accounts import ChangeDisplayName, EraseAccount, GrantRole, RegisterAccount, RevokeRole
from commands.broadcasts import DeleteRecording, DescribeBroadcast
from commands.bus import HANDLERS
from commands.channels import (
    AppointModerator,
    ChangeChatMode,
    DescribeChannel,
    FollowChannel,
    OpenChannel,
    RemoveModerator,
    RotateStreamKey,
    UnfollowChannel,
)
from commands.context import Call, Charged, Declined, Done, Unsettled
from commands.moderation import Ban, ClearChat, DeleteMessage, Unban
from commands.money import CancelSubscription, Subscribe, reconcile
from domain import broadcast, channel, chat, payment, subscription
from domain.account import AccountRegistered
from domain.broadcast import BroadcastEnded, BroadcastStarted
from domain.channel import ChannelOpened, ChatMode, StreamKeyRotated
from domain.chat import MessagePosted, UserBanned, UserTimedOut
from domain.event import ERASED
from domain.payment import PaymentCaptured, PaymentFailed, PaymentRequested
from domain.shared import Refusal
from domain.subscription import SubscriptionStarted
from eventstore.port import Append, Appended, ChatPost, StreamWrite
from tests.commands.world import World


async def test_a_name_is_claimed_once_for_all_however_many_want_it_at_once() -> None:
    world = World()
    outcomes = await asyncio.gather(*(world.do(RegisterAccount(" Ann ", "hash")) for _ in range(10)))
    assert sum(isinstance(outcome, Done) for outcome in outcomes) == 1
    assert {outcome.code for outcome in outcomes if isinstance(outcome, Refusal)} == {"name_taken"}
    assert len(await world.events("name-ann")) == 1


async def test_registering_says_who_and_keeps_the_password_hash_out_of_the_log() -> None:
    world = World()
    done = await world.done(RegisterAccount("Ann", "the-hash", email="ann@example.org"))
    (event,) = await world.events(f"account-{done.value['account_id']}")
    assert event == AccountRegistered(
        account_id=done.value["account_id"], username="ann", display_name="Ann", email="ann@example.org"
    )
    row = await world.store.index_row("credentials", {"username": "ann"})
    assert row == {"username": "ann", "account_id": done.value["account_id"], "password_hash": "the-hash"}


@pytest.mark.parametrize(
    ("name", "code"),
    [("ab", "name_invalid"), ("Ünder", "name_invalid"), ("a b c", "name_invalid"), ("API", "name_reserved")],
)
async def test_a_name_that_cannot_be_one_is_refused(name: str, code: str) -> None:
    world = World()
    assert await world.refused(RegisterAccount(name, "hash")) == code


async def test_a_channel_may_bear_its_owners_name_and_nobody_elses() -> None:
    world = World()
    ann, bob = await world.account("ann"), await world.account("bob")
    opened = await world.done(OpenChannel("ann", "Painting", "Art"), ann)
    assert await world.refused(OpenChannel("bob"), ann) == "name_taken"
    assert await world.refused(OpenChannel("ann"), bob) == "name_taken"
    assert await world.refused(OpenChannel("free_name")) == "forbidden"
    channel_id = opened.value["channel_id"]
    (event,) = await world.events(channel.stream(channel_id))
    assert event == ChannelOpened(
        channel_id=channel_id, name="ann", owner_id=ann.account_id, title="Painting", category="Art"
    )
    assert await world.store.index_row("names", {"name": "ann", "use": "channel"})


async def test_the_same_call_twice_opens_one_channel_and_answers_the_same() -> None:
    world = World()
    ann = await world.account("ann")
    call = Call(uuid4(), ann)
    first = await world.do(OpenChannel("ann"), call=call)
    second = await world.do(OpenChannel("ann"), call=call)
    assert isinstance(first, Done)
    assert isinstance(second, Done)
    assert first.value == second.value
    assert len(await world.events("name-ann")) == 2


async def test_a_new_stream_key_ends_the_old_one_in_the_same_commit() -> None:
    world = World()
    channel_id, ann = await world.channel("ann")
    hashes = [sha256(key).hexdigest() for key in (b"one", b"two")]
    await world.done(RotateStreamKey(channel_id, hashes[0]), ann)
    assert await world.store.index_row("stream_keys", {"key_hash": hashes[0]})
    await world.done(RotateStreamKey(channel_id, hashes[1]), ann)
    assert await world.store.index_row("stream_keys", {"key_hash": hashes[0]}) is None
    row = await world.store.index_row("stream_keys", {"key_hash": hashes[1]})
    assert row == {"key_hash": hashes[1], "channel_id": channel_id, "channel": "ann", "owner_id": ann.account_id}
    assert sum(isinstance(event, StreamKeyRotated) for event in await world.events(channel.stream(channel_id))) == 2


async def test_only_the_owner_or_an_admin_changes_a_channel() -> None:
    world = World()
    channel_id, ann = await world.channel("ann")
    bob, root = await world.account("bob"), await world.account("root", "admin")
    commands: list[Any] = [
        RotateStreamKey(channel_id, "0" * 64),
        DescribeChannel(channel_id, title="hacked"),
        AppointModerator(channel_id, bob.account_id, "bob"),
        RemoveModerator(channel_id, bob.account_id, "bob"),
        ChangeChatMode(channel_id, ChatMode(slow_s=5)),
        Ban(channel_id, ann.account_id, "ann"),
        ClearChat(channel_id),
        DeleteMessage(channel_id, "m"),
    ]
    for command in commands:
        assert await world.refused(command, bob) == "forbidden", command
        assert await world.refused(command) == "forbidden", command
    await world.done(DescribeChannel(channel_id, title="by root"), root)
    assert await world.refused(GrantRole(bob.account_id, "admin"), bob) == "forbidden"
    assert await world.refused(GrantRole(bob.account_id, "king"), root) == "role_unknown"


async def test_sending_a_decision_again_says_nothing_new() -> None:
    world = World()
    channel_id, ann = await world.channel("ann")
    bob = await world.account("bob")
    decisions: list[tuple[Any, Any]] = [
        (DescribeChannel(channel_id, title="new", tags=("a",)), ann),
        (RotateStreamKey(channel_id, "1" * 64), ann),
        (AppointModerator(channel_id, bob.account_id, "bob"), ann),
        (ChangeChatMode(channel_id, ChatMode(unique=True)), ann),
        (RemoveModerator(channel_id, bob.account_id, "bob"), ann),
        (FollowChannel(channel_id), bob),
        (UnfollowChannel(channel_id), bob),
        (Ban(channel_id, bob.account_id, "bob"), ann),
        (Unban(channel_id, bob.account_id, "bob"), ann),
        (GrantRole(bob.account_id, "finance", trusted=True), None),
        (RevokeRole(bob.account_id, "finance", trusted=True), None),
        (ChangeDisplayName("Bobby"), bob),
    ]
    for command, actor in decisions:
        first = await world.done(command, actor)
        assert first.placed, command
        heads = await world.store.heads()
        assert (await world.done(command, actor)).placed == (), command
        assert await world.store.heads() == heads


async def test_moderators_may_ban_viewers_but_neither_owner_nor_each_other() -> None:
    world = World()
    channel_id, ann = await world.channel("ann")
    mod, other, eve = [await world.account(name) for name in ("mod", "other", "eve")]
    for one in (mod, other):
        await world.done(AppointModerator(channel_id, one.account_id, one.username), ann)
    assert await world.refused(Ban(channel_id, ann.account_id, "ann"), mod) == "cannot_ban_owner"
    assert await world.refused(Ban(channel_id, other.account_id, "other"), mod) == "cannot_ban_moderator"
    assert await world.refused(Ban(channel_id, mod.account_id, "mod"), mod) == "cannot_ban_self"
    assert await world.refused(Ban(channel_id, eve.account_id, "eve", duration_s=0), mod) == "duration_invalid"
    await world.done(Ban(channel_id, eve.account_id, "eve", duration_s=60, reason="spam"), mod)
    await world.done(Ban(channel_id, eve.account_id, "eve"), mod)
    await world.done(Ban(channel_id, other.account_id, "other"), ann)
    timed_out, *banned = await world.events(chat.stream(channel_id))
    assert isinstance(timed_out, UserTimedOut)
    assert (timed_out.duration_s, timed_out.reason, timed_out.moderator) == (60, "spam", "mod")
    assert [type(event) for event in banned] == [UserBanned, UserBanned]


async def test_a_deleted_message_names_its_author_and_is_deleted_once() -> None:
    world = World()
    channel_id, ann = await world.channel("ann")
    event = MessagePosted(channel_id=channel_id, message_id="m1", author_id="a-eve", username="eve", text="spam")
    assert isinstance(await world.store.post_message(ChatPost(uuid4(), channel_id, "a-eve", event, b"x")), Appended)
    await asyncio.gather(*(world.done(DeleteMessage(channel_id, "m1"), ann) for _ in range(3)))
    _, deleted = await world.events(chat.stream(channel_id))
    assert (deleted.author_id, deleted.username, deleted.moderator) == ("a-eve", "eve", "ann")
    assert await world.refused(DeleteMessage(channel_id, "m2"), ann) == "message_not_found"


async def test_an_erased_person_is_forgotten_and_cannot_log_in() -> None:
    world = World()
    ann, bob = await world.account("ann"), await world.account("bob")
    assert await world.refused(EraseAccount(ann.account_id), bob) == "forbidden"
    await world.done(EraseAccount(ann.account_id), ann)
    registered, _ = await world.events(f"account-{ann.account_id}")
    assert registered.display_name == ERASED
    assert await world.store.index_row("credentials", {"username": "ann"}) is None
    assert await world.refused(RegisterAccount("ann", "hash")) == "name_taken"


async def test_a_recording_is_deleted_by_its_owner_once_its_broadcast_has_ended() -> None:
    world = World()
    channel_id, ann = await world.channel("ann")
    bob = await world.account("bob")
    started = BroadcastStarted(
        broadcast_id="b1", channel_id=channel_id, title="", category="", started_at=world.now, node="n"
    )
    await world.store.append(Append(uuid4(), [StreamWrite(broadcast.stream("b1"), channel_id, [started])]))
    assert await world.refused(DeleteRecording("b1"), bob) == "forbidden"
    assert await world.refused(DeleteRecording("b1"), ann) == "broadcast_live"
    assert await world.refused(DeleteRecording("b2"), ann) == "broadcast_not_found"
    assert await world.refused(DescribeBroadcast("b1", title="mine"), bob) == "forbidden"
    assert await world.refused(DescribeBroadcast("b2", title="mine"), ann) == "broadcast_not_found"
    assert (await world.done(DescribeBroadcast("b1", title="Oil"), ann)).placed
    assert not (await world.done(DescribeBroadcast("b1", title="Oil", category=""), ann)).placed
    ended = BroadcastEnded(broadcast_id="b1", channel_id=channel_id, ended_at=world.now, reason="unpublished")
    await world.store.append(Append(uuid4(), [StreamWrite(broadcast.stream("b1"), channel_id, [ended])]))
    assert (await world.done(DeleteRecording("b1"), ann)).placed
    assert not (await world.done(DeleteRecording("b1"), ann)).placed


async def test_subscribing_many_times_at_once_charges_once() -> None:
    world = World()
    channel_id, _ = await world.channel("ann")
    bob = await world.account("bob")
    outcomes = await asyncio.gather(*(world.do(Subscribe(channel_id, 1 + number % 3), bob) for number in range(9)))
    assert len(world.provider.charged) == 1
    done = [outcome for outcome in outcomes if isinstance(outcome, Done)]
    assert done
    assert len({outcome.value["payment_id"] for outcome in done}) == 1
    assert {outcome.code for outcome in outcomes if isinstance(outcome, Refusal)} <= {"already_subscribed"}
    (started,) = await world.events(subscription.stream(channel_id, bob.account_id))
    assert isinstance(started, SubscriptionStarted)
    assert subscription.PRICES[started.tier] == started.price
    asked, captured = await world.events(payment.stream(started.payment_id))
    assert isinstance(asked, PaymentRequested)
    assert isinstance(captured, PaymentCaptured)
    assert asked.amount == captured.amount == started.price
    assert await world.refused(Subscribe(channel_id, 1), bob) == "already_subscribed"


async def test_a_declined_card_is_final_for_its_payment_and_the_next_try_is_another() -> None:
    world = World()
    channel_id, ann = await world.channel("ann")
    bob = await world.account("bob")
    world.provider.answers = [Declined("card_declined")]
    assert await world.refused(Subscribe(channel_id, 1), bob) == "payment_declined"
    done = await world.done(Subscribe(channel_id, 1), bob)
    assert list(world.provider.charged) == [done.value["payment_id"]]
    assert await world.refused(Subscribe(channel_id, 1), ann) == "own_channel"
    assert await world.refused(Subscribe(channel_id, 4), ann) == "own_channel"
    eve = await world.account("eve")
    assert await world.refused(Subscribe(channel_id, 4), eve) == "tier_unknown"
    assert await world.refused(Subscribe(channel_id, 1, "EUR"), eve) == "currency_unknown"


async def test_a_lost_answer_is_asked_for_again_under_the_same_payment() -> None:
    world = World()
    channel_id, _ = await world.channel("ann")
    bob = await world.account("bob")
    world.provider.answers = [Unsettled("timeout")]
    assert await world.refused(Subscribe(channel_id, 2), bob) == "payment_unsettled"
    done = await world.done(Subscribe(channel_id, 2), bob)
    assert len(world.provider.charged) == 1
    eve = await world.account("eve")
    world.provider.answers = [Unsettled("timeout")]
    assert await world.refused(Subscribe(channel_id, 2), eve) == "payment_unsettled"
    requests = [
        recorded.event
        for shard, head in enumerate(await world.store.heads())
        if head
        for recorded in await world.store.read_shard(shard, after=0)
        if isinstance(recorded.event, PaymentRequested) and recorded.event.account_id == eve.account_id
    ]
    (request,) = requests
    assert await world.store.index_row("payments_open", {"payment_id": request.payment_id})
    world.provider.charged[request.payment_id] = Charged("ch_lost", request.amount)
    for _ in range(2):
        assert isinstance(await reconcile(world.context, request.payment_id), Done)
    assert len(world.provider.charged) == 2
    (started,) = await world.events(subscription.stream(channel_id, eve.account_id))
    assert (started.username, started.tier) == ("eve", 2)
    assert await world.store.index_row("payments_open", {"payment_id": request.payment_id}) is None
    assert done.value["payment_id"] != request.payment_id


async def test_a_payment_that_never_reached_its_provider_fails_and_the_same_purchase_may_be_sent_again() -> None:
    world = World()
    channel_id, _ = await world.channel("ann")
    bob = await world.account("bob")
    world.provider.answers = [Unsettled("timeout")]
    purchase = Call(uuid4(), bob)
    refused = await world.do(Subscribe(channel_id, 1), call=purchase)
    assert isinstance(refused, Refusal)
    assert refused.retryable
    (row,) = world.open_payments()
    for _ in range(2):
        settled = await reconcile(world.context, row)
        assert isinstance(settled, Refusal)
        assert settled.code == "payment_declined"
    assert world.open_payments() == []
    done = await world.do(Subscribe(channel_id, 1), call=purchase)
    assert isinstance(done, Done)
    assert list(world.provider.charged) == [done.value["payment_id"]] != [row]
    unknown = await reconcile(world.context, "no-such-payment")
    assert isinstance(unknown, Refusal)
    assert unknown.code == "payment_not_found"


async def test_a_declined_purchase_sent_again_is_declined_again_without_asking_the_provider() -> None:
    world = World()
    channel_id, _ = await world.channel("ann")
    bob = await world.account("bob")
    world.provider.answers = [Declined("card_declined")]
    purchase = Call(uuid4(), bob)
    for _ in range(2):
        refused = await world.do(Subscribe(channel_id, 1), call=purchase)
        assert isinstance(refused, Refusal)
        assert refused.code == "payment_declined"
    assert world.provider.charged == {}
    assert world.open_payments() == []


async def test_a_failed_payment_says_so_in_the_log() -> None:
    world = World()
    channel_id, _ = await world.channel("ann")
    bob = await world.account("bob")
    world.provider.answers = [Declined("insufficient_funds")]
    await world.refused(Subscribe(channel_id, 1), bob)
    failed = [
        recorded.event
        for shard, head in enumerate(await world.store.heads())
        if head
        for recorded in await world.store.read_shard(shard, after=0, categories=["money"])
        if isinstance(recorded.event, PaymentFailed)
    ]
    assert [event.code for event in failed] == ["insufficient_funds"]


async def test_a_cancelled_subscription_runs_to_the_end_of_its_period() -> None:
    world = World()
    channel_id, _ = await world.channel("ann")
    bob = await world.account("bob")
    assert await world.refused(CancelSubscription(channel_id), bob) == "subscription_not_found"
    await world.done(Subscribe(channel_id, 1), bob)
    await world.done(CancelSubscription(channel_id), bob)
    started, cancelled = await world.events(subscription.stream(channel_id, bob.account_id))
    assert cancelled.expires_at == started.expires_at
    assert not (await world.done(CancelSubscription(channel_id), bob)).placed


def test_every_command_has_a_handler() -> None:
    from commands import accounts, broadcasts, channels, moderation, money

    declared = {
        one
        for module in (accounts, broadcasts, channels, moderation, money)
        for one in vars(module).values()
        if isinstance(one, type) and one.__module__ == module.__name__
    }
    assert declared == set(HANDLERS)
