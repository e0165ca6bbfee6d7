"""Registering, names, roles and erasure of accounts."""

from dataclasses import dataclass

from commands.authorise import FORBIDDEN
from commands.context import Call, Context, Done
from commands.transact import ATTEMPTS_MAX, CONFLICT, append, load, transact
from domain import account, name
from domain.shared import Refusal, normalise_name
from eventstore.port import IndexWrite, StreamWrite, WrongVersion


@dataclass(frozen=True, slots=True)
class RegisterAccount:
    """The account's id is the command's. `password_hash` never enters an event."""

    username: str
    password_hash: str
    display_name: str | None = None
    email: str | None = None


@dataclass(frozen=True, slots=True)
class GrantRole:
    """`trusted`: from the command line of the machine itself, where no account stands behind it."""

    account_id: str
    role: str
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class RevokeRole:
    """`trusted`: as of `GrantRole`. Where two are revoked at once, who sends them lets one wait for the other: the last admin stays."""

    account_id: str
    role: str
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class ChangeDisplayName:
    display_name: str


@dataclass(frozen=True, slots=True)
class EraseAccount:
    account_id: str


async def register(context: Context, call: Call, command: RegisterAccount) -> Done | Refusal:
    username = normalise_name(command.username)
    if isinstance(username, Refusal):
        return username
    account_id = str(call.command_id)
    value = {"account_id": account_id, "username": username}
    for _ in range(ATTEMPTS_MAX):
        claims, version = await load(context, name.stream(username), name.Claims(), name.evolve)
        claimed = name.claim(claims, username, "account", account_id=account_id, subject_id=account_id)
        if isinstance(claimed, Refusal):
            return claimed
        if not claimed:
            # This very command claimed it before: the append below answers with what it came to then.
            return Done(value)
        registered = account.AccountRegistered(
            account_id=account_id,
            username=username,
            display_name=command.display_name or command.username.strip(),
            email=command.email,
        )
        outcome = await append(
            context,
            call,
            [
                StreamWrite(name.stream(username), username, claimed, version),
                StreamWrite(account.stream(account_id), account_id, [registered], 0),
            ],
            [
                IndexWrite(
                    "names", {"name": username, "use": "account"}, {"account_id": account_id, "subject_id": account_id}
                ),
                IndexWrite(
                    "credentials",
                    {"username": username},
                    {"account_id": account_id, "password_hash": command.password_hash},
                ),
            ],
        )
        if not isinstance(outcome, WrongVersion):
            return Done(value, outcome.placed)
    return CONFLICT


async def grant_role(context: Context, call: Call, command: GrantRole) -> Done | Refusal:
    if not _may_give_roles(call, command.trusted):
        return FORBIDDEN
    key = {"account_id": command.account_id, "role": command.role}
    return await transact(
        context,
        call,
        stream=account.stream(command.account_id),
        key=command.account_id,
        initial=account.Account(),
        evolve=account.evolve,
        decide=lambda state: account.grant(state, command.account_id, command.role),
        index=lambda _: [IndexWrite("account_roles", key, {})],
    )


async def revoke_role(context: Context, call: Call, command: RevokeRole) -> Done | Refusal:
    if not _may_give_roles(call, command.trusted):
        return FORBIDDEN
    holders = await context.store.index_rows("account_roles", {"role": command.role})
    others = any(row["account_id"] != command.account_id for row in holders)
    key = {"account_id": command.account_id, "role": command.role}
    return await transact(
        context,
        call,
        stream=account.stream(command.account_id),
        key=command.account_id,
        initial=account.Account(),
        evolve=account.evolve,
        decide=lambda state: account.revoke(state, command.account_id, command.role, others=others),
        index=lambda _: [IndexWrite("account_roles", key, None)],
    )


def _may_give_roles(call: Call, trusted: bool) -> bool:
    return trusted or (call.actor is not None and "admin" in call.actor.roles)


async def change_display_name(context: Context, call: Call, command: ChangeDisplayName) -> Done | Refusal:
    if call.actor is None:
        return FORBIDDEN
    account_id = call.actor.account_id
    return await transact(
        context,
        call,
        stream=account.stream(account_id),
        key=account_id,
        initial=account.Account(),
        evolve=account.evolve,
        decide=lambda state: account.change_display_name(state, account_id, command.display_name),
    )


async def erase(context: Context, call: Call, command: EraseAccount) -> Done | Refusal:
    """The fact first, then the key: what was said of the person reads as erased from then on. Sent again, it finishes what it began.

    With the fact go password, roles and stream keys: nobody logs in or broadcasts as somebody who is no more.
    """
    actor = call.actor
    if actor is None or (actor.account_id != command.account_id and "admin" not in actor.roles):
        return FORBIDDEN
    keys = await context.store.index_rows("stream_keys", {"owner_id": command.account_id})

    def index(state: account.Account) -> list[IndexWrite]:
        return [
            IndexWrite("credentials", {"username": state.username}, None),
            *(IndexWrite("account_roles", {"account_id": command.account_id, "role": it}, None) for it in state.roles),
            *(IndexWrite("stream_keys", {"key_hash": row["key_hash"]}, None) for row in keys),
        ]

    done = await transact(
        context,
        call,
        stream=account.stream(command.account_id),
        key=command.account_id,
        initial=account.Account(),
        evolve=account.evolve,
        decide=lambda state: account.erase(state, command.account_id),
        index=index,
    )
    if isinstance(done, Done):
        await context.store.erase_person(command.account_id)
    return done
