"""Roles and erasure: the last admin stays, and nothing of an erased person's opens a door any more."""

from hashlib import sha256

import pytest

from commands.accounts import EraseAccount, GrantRole, RevokeRole
from commands.channels import AppointModerator, RotateStreamKey
from domain import account
from domain.account import RoleRevoked
from tests.commands.world import World


async def test_a_role_is_taken_and_its_row_with_it() -> None:
    world = World()
    root, carl = await world.account("root", "admin"), await world.account("carl", "finance")
    row = {"account_id": carl.account_id, "role": "finance"}
    assert await world.store.index_row("account_roles", row)
    assert (await world.done(RevokeRole(carl.account_id, "finance"), root)).placed
    assert await world.store.index_row("account_roles", row) is None
    *_, revoked = await world.events(account.stream(carl.account_id))
    assert revoked == RoleRevoked(account_id=carl.account_id, role="finance")
    assert not (await world.done(RevokeRole(carl.account_id, "finance"), root)).placed
    assert await world.refused(RevokeRole(root.account_id, "admin"), carl) == "forbidden"
    assert await world.refused(RevokeRole(carl.account_id, "king"), root) == "role_unknown"
    assert await world.refused(RevokeRole("nobody", "admin"), root) == "account_not_found"


async def test_the_last_admin_stays() -> None:
    world = World()
    root, carl = await world.account("root", "admin"), await world.account("carl", "finance")
    assert await world.refused(RevokeRole(root.account_id, "admin"), root) == "last_admin"
    await world.done(GrantRole(carl.account_id, "admin"), root)
    await world.done(RevokeRole(root.account_id, "admin"), root)
    assert await world.refused(RevokeRole(carl.account_id, "admin", trusted=True)) == "last_admin"


@pytest.mark.parametrize("by_admin", [True, False])
async def test_an_erased_person_keeps_no_password_role_or_stream_key(by_admin: bool) -> None:
    world = World()
    root = await world.account("root", "admin")
    channel_id, ann = await world.channel("ann")
    other_id, bob = await world.channel("bob")
    await world.done(GrantRole(ann.account_id, "finance", trusted=True))
    await world.done(AppointModerator(other_id, ann.account_id, "ann"), bob)
    hashes = [sha256(key).hexdigest() for key in (b"ann's", b"bob's", b"new")]
    await world.done(RotateStreamKey(channel_id, hashes[0]), ann)
    await world.done(RotateStreamKey(other_id, hashes[1]), bob)
    await world.done(EraseAccount(ann.account_id), root if by_admin else ann)
    assert await world.store.index_row("credentials", {"username": "ann"}) is None
    assert await world.store.index_rows("account_roles", {"account_id": ann.account_id}) == []
    assert await world.store.index_row("stream_keys", {"key_hash": hashes[0]}) is None
    assert await world.store.index_row("stream_keys", {"key_hash": hashes[1]})
    # An access token outlives its account by some minutes.
    assert await world.refused(RotateStreamKey(channel_id, hashes[2]), ann) == "channel_not_found"
    assert await world.store.index_rows("stream_keys", {"owner_id": ann.account_id}) == []
