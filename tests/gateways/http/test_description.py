"""The description of the API: an object a good answer, a problem everything else. That answers keep to it, every test here checks."""

import fastjsonschema
import pytest

from gateways.errors import STATUS
from tests.gateways.http.conftest import Stand
from tests.gateways.http.described import NO_JSON


async def test_every_good_answer_is_described_by_its_fields_and_every_other_by_a_problem(stand: Stand) -> None:
    document = (await stand.client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            good = {status: said for status, said in operation["responses"].items() if status != "default"}
            assert set(good) <= {"200", "201", "204"}, where
            for status, said in good.items():
                if status == "204" or set(said["content"]) & set(NO_JSON):
                    continue
                reference = said["content"]["application/json"]["schema"]["$ref"]
                assert schemas[reference.rpartition("/")[2]]["properties"], where
            problem = operation["responses"]["default"]["content"]["application/problem+json"]["schema"]
            assert problem == {"$ref": "#/components/schemas/ProblemDetails"}
    assert set(schemas["ProblemDetails"]["properties"]["code"]["examples"]) == set(STATUS)
    assert "HTTPValidationError" not in schemas


async def test_who_may_ask_what_is_described(stand: Stand) -> None:
    paths = (await stand.client.get("/openapi.json")).json()["paths"]
    assert {"HTTPBearer": []} in paths["/api/v1/accounts/me"]["get"]["security"]
    assert {"HTTPBearer": []} in paths["/api/v1/finance/trial-balance"]["get"]["security"]
    assert "security" not in paths["/api/v1/channels/live"]["get"]


async def test_the_fields_that_clients_rely_on_are_there(stand: Stand) -> None:
    schemas = stand.described.document["components"]["schemas"]
    promised = {
        "SessionBegun": "access_token token_type expires_in",
        "Channel": "title category tags follower_count subscriber_count is_live current_viewers",
        "StreamKey": "stream_key rtmp_url srt_url",
        "LiveChannel": "channel title category started_at viewers playback_url",
        "Broadcast": "id title started_at ended_at peak_viewers total_views vod_url",
        "ClipMade": "id playback_url download_url",
        "Message": "id position user text badges at",
        "ReplayedMessage": "offset",
    }
    for name, fields in promised.items():
        assert set(fields.split()) <= set(schemas[name]["required"]), name


async def test_an_answer_that_is_not_as_described_is_found(stand: Stand) -> None:
    ann = await stand.register("ann")
    name = await ann.open_channel()
    good = await ann.get(f"/channels/{name}")
    schema = {"$ref": "#/components/schemas/Channel"}
    stand.described.validate(schema, good)
    for bad in (
        {key: value for key, value in good.items() if key != "is_live"},
        good | {"follower_count": "many"},
        good | {"opened_at": "yesterday"},
    ):
        with pytest.raises(fastjsonschema.JsonSchemaValueException):
            stand.described.validate(schema, bad)
