"""A Singer tap for a list and a detail call each, on the same SDK as the target; tap-rest-api-msdk knows no child streams.

Written as the SDK's documentation shows a parent and its children; the SDK makes the calls one after the other.
`python singer_tap.py --config FILE` (base_url, schema).
"""

from singer_sdk import Stream, Tap
from singer_sdk import typing as th
from singer_sdk.streams import RESTStream

LISTED = th.PropertiesList(th.Property("id", th.StringType), th.Property("updated_at", th.DateTimeType)).to_dict()


class ApiStream(RESTStream):
    records_jsonpath = "$.data"
    primary_keys = ("id",)

    @property
    def url_base(self) -> str:
        return self.config["base_url"]


class Changed(ApiStream):
    name = "changed"
    path = "/changed"
    schema = LISTED
    records_jsonpath = "$.data[*]"
    selected_by_default = False

    def get_child_context(self, record: dict, context: object) -> dict:
        return {"id": record["id"]}


class Records(ApiStream):
    name = "records"
    path = "/records/{id}"
    parent_stream_type = Changed
    state_partitioning_keys = ()

    @property
    def schema(self) -> dict:
        return self.config["schema"]


class BenchTap(Tap):
    name = "tap-bench"
    config_jsonschema = th.PropertiesList(
        th.Property("base_url", th.StringType, required=True), th.Property("schema", th.ObjectType(), required=True)
    ).to_dict()

    def discover_streams(self) -> list[Stream]:
        return [Changed(self), Records(self)]


if __name__ == "__main__":
    BenchTap.cli()
