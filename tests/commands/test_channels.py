"""A stream key is told once: the same command never passes another key off as the one that works."""

from hashlib import sha256
from uuid import uuid4

from commands.channels import RotateStreamKey
from commands.context import Call, Done
from domain.shared import Refusal
from tests.commands.world import World


async def test_a_command_that_made_a_key_makes_no_other() -> None:
    world = World()
    channel_id, ann = await world.channel("ann")
    call = Call(uuid4(), ann)
    hashes = [sha256(key).hexdigest() for key in (b"one", b"two")]
    assert isinstance(await world.do(RotateStreamKey(channel_id, hashes[0]), call=call), Done)
    again = await world.do(RotateStreamKey(channel_id, hashes[1]), call=call)
    assert isinstance(again, Refusal)
    assert again.code == "stream_key_told"
    assert await world.store.index_row("stream_keys", {"key_hash": hashes[0]}), "the first goes on working"
    assert await world.store.index_row("stream_keys", {"key_hash": hashes[1]}) is None
