"""Judges a run of commands by what was sent, what was answered and what stands in the log. It knows nothing of how a store works."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from domain.channel import ChatModeChanged
from domain.chat import MessagePosted, UserBanned, UserTimedOut, UserUnbanned
from domain.chat_admission import COOLDOWN_S
from eventstore.port import (
    Append,
    Appended,
    ChatPost,
    Duplicate,
    EventStore,
    Recorded,
    Refused,
    WrongVersion,
)
from tests.eventstore.schedules import Run, Sent

Log = Mapping[int, Sequence[Recorded]]


async def read(store: EventStore, shards: Iterable[int], after: Mapping[int, int]) -> Log:
    """All that was appended to these shards since they stood there."""
    heads = await store.heads()
    log: dict[int, list[Recorded]] = {}
    for shard in shards:
        log[shard], position = [], after.get(shard, 0)
        while position < heads[shard]:
            log[shard] += await store.read_shard(shard, after=position)
            position = log[shard][-1].position
    return log


def assert_dense(log: Log, after: Mapping[int, int]) -> None:
    """Positions follow each other, so do the versions of streams that are new, and no time falls back."""
    versions: Counter[str] = Counter()
    for shard, events in log.items():
        first = after.get(shard, 0) + 1
        assert [event.position for event in events] == list(range(first, first + len(events)))
        assert [event.at for event in events] == sorted(event.at for event in events)
        for event in events:
            versions[event.stream] += 1
            assert event.version == versions[event.stream]


async def assert_each_command_had_its_effects_once(run: Run, log: Log, store: EventStore) -> None:
    by_command: dict[UUID, list[Recorded]] = defaultdict(list)
    for events in log.values():
        for event in events:
            assert event.command_id is not None
            by_command[event.command_id].append(event)
    sent: dict[UUID, list[Sent]] = defaultdict(list)
    for one in run.sent:
        sent[one.asked.command_id].append(one)
    assert set(by_command) <= set(sent), "nothing stands in the log that nobody sent"
    for command_id, tries in sent.items():
        _assert_answered_alike(tries)
        written = [one for one in tries if isinstance(one.outcome, Appended)]
        assert len(written) <= 1
        _assert_written(written, by_command[command_id])
    for one in run.sent:
        _assert_versions_were_met(one)
        if isinstance(one.asked, Append):
            (mark, *_) = one.asked.index
            row = await store.index_row(mark.table, mark.key)
            assert (row is not None) == isinstance(one.outcome, Appended), "index rows stand with their events alone"


def _final(one: Sent) -> bool:
    """Appended or refused for good. A version that was wrong and a wait that was not over may be tried again."""
    return isinstance(one.outcome, Appended) or (isinstance(one.outcome, Refused) and one.outcome.wait_s is None)


def _assert_answered_alike(tries: Sequence[Sent]) -> None:
    """There is one first outcome, every repetition names it, and nothing else is answered once somebody had heard of it."""
    first = [one.outcome for one in tries if _final(one)]
    repeated = [one.outcome.of for one in tries if isinstance(one.outcome, Duplicate)]
    assert len(first) <= 1
    assert all(outcome == first[0] for outcome in repeated) if first else not repeated
    heard = min((one.ended for one in tries if _final(one) or isinstance(one.outcome, Duplicate)), default=None)
    for one in tries:
        assert heard is None or one.began < heard or isinstance(one.outcome, Duplicate)


def _assert_written(written: Sequence[Sent], events: Sequence[Recorded]) -> None:
    """The events of a command are those of the try that was appended, each stream's together, where its outcome says."""
    if not written:
        assert not events
        return
    asked, outcome = written[0].asked, written[0].outcome
    assert isinstance(outcome, Appended)
    if isinstance(asked, ChatPost):
        writes = [(f"chat-{asked.channel_id}", [asked.event])]
    else:
        writes = [(write.stream, list(write.events)) for write in asked.writes]
    assert len(events) == sum(len(some) for _, some in writes)
    assert {event.at for event in events} == {outcome.at}
    for (stream, some), placed in zip(writes, outcome.placed, strict=True):
        stored = [event for event in events if event.stream == stream]
        assert [event.event for event in stored] == some
        numbers = range(len(some) - 1, -1, -1)
        assert [event.version for event in stored] == [placed.version - number for number in numbers]
        assert [event.position for event in stored] == [placed.position - number for number in numbers]
        assert (placed.stream, placed.shard) == (stream, stored[0].shard)


def _assert_versions_were_met(one: Sent) -> None:
    if not isinstance(one.asked, Append):
        assert not isinstance(one.outcome, WrongVersion)
        return
    expected = {write.stream: write for write in one.asked.writes if write.expected is not None}
    if isinstance(one.outcome, WrongVersion):
        assert one.outcome.actual != expected[one.outcome.stream].expected
    if isinstance(one.outcome, Appended):
        for placed in one.outcome.placed:
            if (write := expected.get(placed.stream)) is not None:
                assert placed.version == (write.expected or 0) + len(write.events)


def assert_rooms_kept_their_rules(log: Log) -> None:
    """From the log alone: no message by a user stands after that user's ban, and no two stand closer than the cooldown.

    Messages are plain text, and nobody who writes is a moderator: none stands in a room while it takes emotes only.
    """
    for events in log.values():
        silent: dict[tuple[str, str], datetime | None] = {}
        emotes_only: set[str] = set()
        last: dict[tuple[str, str], datetime] = {}
        for recorded in events:
            match recorded.event:
                case UserBanned() as event:
                    silent[event.channel_id, event.account_id] = None
                case UserTimedOut() as event:
                    silent[event.channel_id, event.account_id] = event.until
                case UserUnbanned() as event:
                    silent.pop((event.channel_id, event.account_id), None)
                case ChatModeChanged() as event:
                    (emotes_only.add if event.mode.emote_only else emotes_only.discard)(event.channel_id)
                case MessagePosted() as event:
                    who = (event.channel_id, event.author_id)
                    until = silent.get(who, recorded.at)
                    assert until is not None, f"{who} had been banned"
                    assert recorded.at >= until, f"{who} had been timed out"
                    assert event.channel_id not in emotes_only
                    assert who not in last or recorded.at - last[who] >= timedelta(seconds=COOLDOWN_S)
                    last[who] = recorded.at
