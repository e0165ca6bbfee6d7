"""Who is told to destroy what, however often one looks."""

from gateways.media_deletions import Deletions


class Given:
    def __init__(self, *deleted: str) -> None:
        self.deleted = list(deleted)
        self.destroyed: list[str] = []
        self.away = False

    async def page(self, after: str | None) -> list[str]:
        return [one for one in sorted(self.deleted) if after is None or one > after][:2]

    async def destroy(self, broadcast_id: str) -> None:
        if self.away:
            raise OSError("the archive is away")
        self.destroyed.append(broadcast_id)


async def test_every_deleted_recording_is_destroyed_once_over_all_pages() -> None:
    given = Given("a", "b", "c", "d", "e")
    deletions = Deletions(given.page, given.destroy)
    await deletions.look()
    given.deleted.append("bb")
    await deletions.look()
    await deletions.look()
    assert given.destroyed == ["a", "b", "c", "d", "e", "bb"]


async def test_an_archive_that_was_away_is_told_again() -> None:
    given = Given("a")
    given.away = True
    deletions = Deletions(given.page, given.destroy)
    try:
        await deletions.look()
    except OSError:
        given.away = False
    await deletions.look()
    assert given.destroyed == ["a"]
