"""Who may do what, read from the index tables that are written with the events: a removed moderator is refused at once, on every pod."""

from typing import Literal

from commands.context import Actor, Context
from domain.shared import Refusal

Role = Literal["owner", "moderator"]

FORBIDDEN = Refusal("forbidden", "You may not do this.")


async def role_in(context: Context, channel_id: str, account_id: str) -> Role | None:
    row = await context.store.index_row("channel_roles", {"channel_id": channel_id, "account_id": account_id})
    return row["role"] if row else None


async def platform_roles(context: Context, account_id: str) -> frozenset[str]:
    found = [
        role
        for role in ("admin", "finance")
        if await context.store.index_row("account_roles", {"account_id": account_id, "role": role})
    ]
    return frozenset(found)


async def may_own(context: Context, channel_id: str, actor: Actor) -> Refusal | None:
    """The channel's owner, or an admin."""
    if "admin" in actor.roles or await role_in(context, channel_id, actor.account_id) == "owner":
        return None
    return FORBIDDEN


async def may_moderate(context: Context, channel_id: str, actor: Actor) -> Refusal | None:
    """Owner, moderators and admins."""
    if "admin" in actor.roles or await role_in(context, channel_id, actor.account_id):
        return None
    return FORBIDDEN
