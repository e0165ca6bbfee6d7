"""A key per person, kept apart from the log, so that deleting the key erases the person from it (crypto-shredding).

Personal fields are sealed one by one with AES-256-GCM (NIST SP 800-38D) under their person's key; the keys stand in a database of their
own, wrapped by the master key, and are cached for at most `CACHE_S`. Called by the stores; knows nothing of events.
"""

import base64
import os
import time
from binascii import a2b_base64
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any, Final, Protocol

import asyncpg
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from eventstore.errors import StoreError, StoreUnavailable
from eventstore.writer import FAULTS_OF_CONNECTION

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
CACHED_PERSONS_MAX: Final = 100_000
CACHE_S: Final = 30.0
"""How long another process may still read what was erased."""
_SEALED: Final = "$sealed"


class WrongMasterKey(StoreError):
    """The keys' database was made with another master key."""


class PersonalKeys(Protocol):
    async def ensure(self, persons: Collection[str]) -> Mapping[str, AESGCM | None]:
        """Each person's key, made where there is none yet. None for the erased."""
        ...

    async def find(self, persons: Collection[str]) -> Mapping[str, AESGCM | None]:
        """Each person's key, None for the erased and the unknown."""
        ...

    async def erase(self, person: str) -> None:
        """Destroy the key and keep a tombstone, so that none is ever made again. Repeating it changes nothing."""
        ...


def seal(key: AESGCM, text: str, context: bytes) -> dict[str, str]:
    """What stands in the log for a personal text. `context` (topic and field) binds it to its place."""
    nonce = os.urandom(NONCE_BYTES)
    return {_SEALED: base64.b64encode(nonce + key.encrypt(nonce, text.encode(), context)).decode("ascii")}


def is_sealed(value: Any) -> bool:
    return type(value) is dict and _SEALED in value and len(value) == 1


def unseal(key: AESGCM | None, value: Mapping[str, str], context: bytes) -> str | None:
    """The text, or None where the key is gone or is another than the one that sealed it."""
    if key is None:
        return None
    data = a2b_base64(value[_SEALED])
    try:
        return key.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], context).decode()
    except InvalidTag:
        return None


class MemoryKeys:
    """Keys that live as long as the process, for the in-memory store."""

    def __init__(self) -> None:
        self._keys: dict[str, AESGCM | None] = {}

    async def ensure(self, persons: Collection[str]) -> Mapping[str, AESGCM | None]:
        for person in persons:
            if person not in self._keys:
                self._keys[person] = AESGCM(os.urandom(KEY_BYTES))
        return {person: self._keys[person] for person in persons}

    async def find(self, persons: Collection[str]) -> Mapping[str, AESGCM | None]:
        return {person: self._keys.get(person) for person in persons}

    async def erase(self, person: str) -> None:
        self._keys[person] = None


class PostgresKeys:
    """Keys in a Postgres database of their own, `schema_keys/`. Unknown persons are not cached, so that a new key is seen at once."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", master_key: bytes) -> None:
        self._pool = pool
        self._master = AESGCM(master_key)
        self._cache: OrderedDict[str, tuple[float, AESGCM | None]] = OrderedDict()

    async def ensure(self, persons: Collection[str]) -> Mapping[str, AESGCM | None]:
        found = await self._known(persons)
        if missing := [person for person in persons if person not in found]:
            wrapped = [self._wrap(person, os.urandom(KEY_BYTES)) for person in missing]
            await self._fetch(
                "INSERT INTO person_keys (person, wrapped) SELECT * FROM unnest($1::text[], $2::bytea[])"
                " ON CONFLICT (person) DO NOTHING",
                missing,
                wrapped,
            )
            found |= await self._known(missing)
        return found

    async def find(self, persons: Collection[str]) -> Mapping[str, AESGCM | None]:
        found = await self._known(persons)
        return {person: found.get(person) for person in persons}

    async def erase(self, person: str) -> None:
        await self._fetch(
            "INSERT INTO person_keys (person, wrapped, erased_at) VALUES ($1, NULL, now())"
            " ON CONFLICT (person) DO UPDATE SET wrapped = NULL, erased_at = coalesce(person_keys.erased_at, now())",
            person,
        )
        self._cache.pop(person, None)

    async def _known(self, persons: Collection[str]) -> dict[str, AESGCM | None]:
        now = time.monotonic()
        found: dict[str, AESGCM | None] = {}
        missing = []
        for person in persons:
            entry = self._cache.get(person)
            if entry is not None and entry[0] > now:
                found[person] = entry[1]
            else:
                missing.append(person)
        if missing:
            for row in await self._fetch(
                "SELECT person, wrapped FROM person_keys WHERE person = ANY($1::text[])", missing
            ):
                person, wrapped = row["person"], row["wrapped"]
                found[person] = key = None if wrapped is None else AESGCM(self._unwrap(person, wrapped))
                self._cache[person] = (now + CACHE_S, key)
                self._cache.move_to_end(person)
            while len(self._cache) > CACHED_PERSONS_MAX:
                self._cache.popitem(last=False)
        return found

    def _wrap(self, person: str, key: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._master.encrypt(nonce, key, person.encode())

    def _unwrap(self, person: str, wrapped: bytes) -> bytes:
        try:
            return self._master.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], person.encode())
        except InvalidTag:
            raise WrongMasterKey("the master key does not open the personal keys") from None

    async def _fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        try:
            return await self._pool.fetch(sql, *args)
        except FAULTS_OF_CONNECTION as fault:
            raise StoreUnavailable("the keys' database is away") from fault
