"""Every kind of event there is, by its topic: what the mapper of the store is made with. A new event is added here, or no log takes it."""

from collections.abc import Mapping
from typing import Final

from domain import account, broadcast, channel, chat, follow, name, payment, recording, subscription
from domain.event import Event

EVENTS: Final[tuple[type[Event], ...]] = (
    account.AccountRegistered,
    account.DisplayNameChanged,
    account.AccountErased,
    account.RoleGranted,
    account.RoleRevoked,
    name.NameClaimed,
    name.NameReleased,
    channel.ChannelOpened,
    channel.ChannelDescribed,
    channel.StreamKeyRotated,
    channel.ModeratorAppointed,
    channel.ModeratorRemoved,
    channel.ChatModeChanged,
    channel.PlaybackRuleChanged,
    follow.ChannelFollowed,
    follow.ChannelUnfollowed,
    broadcast.BroadcastStarted,
    broadcast.RenditionAdded,
    broadcast.BroadcastInterrupted,
    broadcast.BroadcastResumed,
    broadcast.BroadcastDescribed,
    broadcast.BroadcastEnded,
    broadcast.RecordingPublished,
    broadcast.RecordingUnpublished,
    broadcast.RecordingDeleted,
    broadcast.ClipCreated,
    broadcast.ClipDeleted,
    recording.SegmentsRecorded,
    chat.MessagePosted,
    chat.MessageDeleted,
    chat.UserTimedOut,
    chat.UserBanned,
    chat.UserUnbanned,
    chat.ChatCleared,
    subscription.SubscriptionStarted,
    subscription.SubscriptionRenewed,
    subscription.SubscriptionCancelled,
    subscription.SubscriptionExpired,
    payment.PaymentRequested,
    payment.PaymentCaptured,
    payment.PaymentFailed,
    payment.PaymentRefunded,
    payment.DonationReceived,
)
BY_TOPIC: Final[Mapping[str, type[Event]]] = {event.TOPIC: event for event in EVENTS}
