"""Every command there is, on one screen. Gateways call `handle`; nothing else calls a handler."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from commands import accounts, broadcasts, channels, moderation, money
from commands.context import Call, Context, Done
from domain.shared import Refusal

Handler = Callable[[Context, Call, Any], Awaitable[Done | Refusal]]


async def handle(context: Context, call: Call, command: Any) -> Done | Refusal:
    """Authorise, load, decide, append, answer. Raises only `eventstore.errors.StoreUnavailable`."""
    return await HANDLERS[type(command)](context, call, command)


HANDLERS: Final[Mapping[type[Any], Handler]] = {
    accounts.RegisterAccount: accounts.register,
    accounts.GrantRole: accounts.grant_role,
    accounts.RevokeRole: accounts.revoke_role,
    accounts.ChangeDisplayName: accounts.change_display_name,
    accounts.EraseAccount: accounts.erase,
    channels.OpenChannel: channels.open_channel,
    channels.RotateStreamKey: channels.rotate_stream_key,
    channels.DescribeChannel: channels.describe,
    channels.AppointModerator: channels.appoint_moderator,
    channels.RemoveModerator: channels.remove_moderator,
    channels.ChangeChatMode: channels.change_chat_mode,
    channels.ChangePlaybackRule: channels.change_playback_rule,
    channels.FollowChannel: channels.follow_channel,
    channels.UnfollowChannel: channels.unfollow_channel,
    broadcasts.DescribeBroadcast: broadcasts.describe,
    broadcasts.DeleteRecording: broadcasts.delete_recording,
    broadcasts.PublishRecording: broadcasts.publish,
    broadcasts.CreateClip: broadcasts.create_clip,
    broadcasts.DeleteClip: broadcasts.delete_clip,
    moderation.Ban: moderation.ban,
    moderation.Unban: moderation.unban,
    moderation.DeleteMessage: moderation.delete_message,
    moderation.ClearChat: moderation.clear_chat,
    money.Subscribe: money.subscribe,
    money.CancelSubscription: money.cancel_subscription,
}
