"""Opening and describing channels, stream keys, moderators, chat modes, follows and recordings."""

from dataclasses import dataclass
from typing import Final

from commands.authorise import FORBIDDEN, may_own, role_in
from commands.context import Call, Context, Done
from commands.transact import ATTEMPTS_MAX, CONFLICT, append, load, transact
from domain import account, channel, follow, name
from domain.channel import ChatMode
from domain.shared import Refusal, normalise_name
from eventstore.port import IndexWrite, StreamWrite, WrongVersion


@dataclass(frozen=True, slots=True)
class OpenChannel:
    """The channel's id is the command's."""

    name: str
    title: str = ""
    category: str = ""


@dataclass(frozen=True, slots=True)
class RotateStreamKey:
    """`key_hash`: hex SHA-256 of the new key; the old one stops working with the same commit.

    A key is told once: a command that had made one is refused when it comes again with another.
    """

    channel_id: str
    key_hash: str


@dataclass(frozen=True, slots=True)
class DescribeChannel:
    """What is None stays."""

    channel_id: str
    title: str | None = None
    category: str | None = None
    tags: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class AppointModerator:
    channel_id: str
    account_id: str
    username: str


@dataclass(frozen=True, slots=True)
class RemoveModerator:
    channel_id: str
    account_id: str
    username: str


@dataclass(frozen=True, slots=True)
class ChangeChatMode:
    channel_id: str
    mode: ChatMode


@dataclass(frozen=True, slots=True)
class ChangePlaybackRule:
    channel_id: str
    subscribers_only: bool


@dataclass(frozen=True, slots=True)
class FollowChannel:
    channel_id: str


@dataclass(frozen=True, slots=True)
class UnfollowChannel:
    channel_id: str


async def open_channel(context: Context, call: Call, command: OpenChannel) -> Done | Refusal:
    if call.actor is None:
        return FORBIDDEN
    wanted = normalise_name(command.name)
    if isinstance(wanted, Refusal):
        return wanted
    channel_id, owner = str(call.command_id), call.actor
    value = {"channel_id": channel_id, "name": wanted}
    for _ in range(ATTEMPTS_MAX):
        claims, version = await load(context, name.stream(wanted), name.Claims(), name.evolve)
        claimed = name.claim(claims, wanted, "channel", account_id=owner.account_id, subject_id=channel_id)
        if isinstance(claimed, Refusal):
            return claimed
        if not claimed:
            return Done(value)
        opened = channel.ChannelOpened(
            channel_id=channel_id,
            name=wanted,
            owner_id=owner.account_id,
            title=command.title,
            category=command.category,
        )
        outcome = await append(
            context,
            call,
            [
                StreamWrite(name.stream(wanted), wanted, claimed, version),
                StreamWrite(channel.stream(channel_id), channel_id, [opened], 0),
            ],
            [
                IndexWrite(
                    "names",
                    {"name": wanted, "use": "channel"},
                    {"account_id": owner.account_id, "subject_id": channel_id},
                ),
                IndexWrite(
                    "channel_roles",
                    {"channel_id": channel_id, "account_id": owner.account_id},
                    {"role": "owner", "username": owner.username},
                ),
            ],
        )
        if not isinstance(outcome, WrongVersion):
            return Done(value, outcome.placed)
    return CONFLICT


_KEY_TOLD: Final = Refusal(
    "stream_key_told",
    "This request made a stream key already, and no key is kept. Ask for another with a new Idempotency-Key.",
)


async def rotate_stream_key(context: Context, call: Call, command: RotateStreamKey) -> Done | Refusal:
    if call.actor is None or await may_own(context, command.channel_id, call.actor):
        return FORBIDDEN

    def index(state: channel.Channel) -> list[IndexWrite]:
        new = {"channel_id": command.channel_id, "channel": state.name, "owner_id": state.owner_id}
        rows = [IndexWrite("stream_keys", {"key_hash": command.key_hash}, new)]
        if state.key_hash is not None:
            rows.insert(0, IndexWrite("stream_keys", {"key_hash": state.key_hash}, None))
        return rows

    stream = channel.stream(command.channel_id)
    state, _ = await load(context, stream, channel.Channel(), channel.evolve)
    owner, _ = await load(context, account.stream(state.owner_id), account.Account(), account.evolve)
    if owner.erased:
        return channel.NOT_FOUND
    done = await transact(
        context,
        call,
        stream=stream,
        key=command.channel_id,
        initial=channel.Channel(),
        evolve=channel.evolve,
        decide=lambda state: channel.rotate_key(state, command.channel_id, command.key_hash),
        index=index,
    )
    if isinstance(done, Done) and done.placed:
        (made,) = await context.store.read_stream(stream, after=done.placed[0].version - 1, limit=1)
        if made.event.key_hash != command.key_hash:
            return _KEY_TOLD
    return done


async def describe(context: Context, call: Call, command: DescribeChannel) -> Done | Refusal:
    if call.actor is None or await may_own(context, command.channel_id, call.actor):
        return FORBIDDEN
    return await transact(
        context,
        call,
        stream=channel.stream(command.channel_id),
        key=command.channel_id,
        initial=channel.Channel(),
        evolve=channel.evolve,
        decide=lambda state: channel.describe(
            state, command.channel_id, title=command.title, category=command.category, tags=command.tags
        ),
    )


async def appoint_moderator(context: Context, call: Call, command: AppointModerator) -> Done | Refusal:
    if call.actor is None or await may_own(context, command.channel_id, call.actor):
        return FORBIDDEN
    row = IndexWrite(
        "channel_roles",
        {"channel_id": command.channel_id, "account_id": command.account_id},
        {"role": "moderator", "username": command.username},
    )
    return await transact(
        context,
        call,
        stream=channel.stream(command.channel_id),
        key=command.channel_id,
        initial=channel.Channel(),
        evolve=channel.evolve,
        decide=lambda state: channel.appoint(state, command.channel_id, command.account_id, command.username),
        index=lambda _: [row],
    )


async def remove_moderator(context: Context, call: Call, command: RemoveModerator) -> Done | Refusal:
    if call.actor is None or await may_own(context, command.channel_id, call.actor):
        return FORBIDDEN
    row = IndexWrite("channel_roles", {"channel_id": command.channel_id, "account_id": command.account_id}, None)
    return await transact(
        context,
        call,
        stream=channel.stream(command.channel_id),
        key=command.channel_id,
        initial=channel.Channel(),
        evolve=channel.evolve,
        decide=lambda state: channel.remove(state, command.channel_id, command.account_id, command.username),
        index=lambda _: [row],
    )


async def change_chat_mode(context: Context, call: Call, command: ChangeChatMode) -> Done | Refusal:
    if call.actor is None:
        return FORBIDDEN
    if "admin" not in call.actor.roles and not await role_in(context, command.channel_id, call.actor.account_id):
        return FORBIDDEN
    row = IndexWrite("chat_modes", {"channel_id": command.channel_id}, command.mode.model_dump())
    return await transact(
        context,
        call,
        stream=channel.stream(command.channel_id),
        key=command.channel_id,
        initial=channel.Channel(),
        evolve=channel.evolve,
        decide=lambda state: channel.change_mode(state, command.channel_id, command.mode),
        index=lambda _: [row],
    )


async def change_playback_rule(context: Context, call: Call, command: ChangePlaybackRule) -> Done | Refusal:
    if call.actor is None or await may_own(context, command.channel_id, call.actor):
        return FORBIDDEN
    row = IndexWrite("channels_closed", {"channel_id": command.channel_id}, {} if command.subscribers_only else None)
    return await transact(
        context,
        call,
        stream=channel.stream(command.channel_id),
        key=command.channel_id,
        initial=channel.Channel(),
        evolve=channel.evolve,
        decide=lambda state: channel.change_playback_rule(
            state, command.channel_id, subscribers_only=command.subscribers_only
        ),
        index=lambda _: [row],
    )


async def follow_channel(context: Context, call: Call, command: FollowChannel) -> Done | Refusal:
    if call.actor is None:
        return FORBIDDEN
    account_id = call.actor.account_id
    return await transact(
        context,
        call,
        stream=follow.stream(command.channel_id, account_id),
        key=command.channel_id,
        initial=False,
        evolve=follow.evolve,
        decide=lambda state: follow.follow(state, command.channel_id, account_id),
    )


async def unfollow_channel(context: Context, call: Call, command: UnfollowChannel) -> Done | Refusal:
    if call.actor is None:
        return FORBIDDEN
    account_id = call.actor.account_id
    return await transact(
        context,
        call,
        stream=follow.stream(command.channel_id, account_id),
        key=command.channel_id,
        initial=False,
        evolve=follow.evolve,
        decide=lambda state: follow.unfollow(state, command.channel_id, account_id),
    )
