"""The same work with dlt, as its documentation shows it: resources, a deferred transformer for details, merge by upsert.

Runs in dlt's own environment: `python with_dlt.py changed|pages BASE_URL PIPELINES_DIR`, DATABASE_URL set. Fifteen details at a time.
"""

import os
import sys

import dlt
from dlt.sources.helpers import requests

UPSERT = {"disposition": "merge", "strategy": "upsert"}


@dlt.resource(name="changed_ids", selected=False)
def changed_ids(base: str):
    yield requests.get(f"{base}/changed").json()["data"]


@dlt.transformer(name="records", primary_key="id", write_disposition=UPSERT)
def details(entries, base: str):
    @dlt.defer
    def detail(entry):
        return requests.get(f"{base}/records/{entry['id']}").json()["data"]

    for entry in entries:
        yield detail(entry)


@dlt.resource(name="records", primary_key="id", write_disposition=UPSERT)
def pages(base: str):
    page = 1
    while page:
        body = requests.get(f"{base}/page", params={"page": page, "per_page": 1000}).json()
        yield body["data"]
        page = body["next_page"]


def main(kind: str, base: str, folder: str) -> None:
    pipeline = dlt.pipeline(
        pipeline_name="bench",
        pipelines_dir=folder,
        destination=dlt.destinations.postgres(credentials=os.environ["DATABASE_URL"]),
        dataset_name="bench",
    )
    pipeline.run(changed_ids(base) | details(base) if kind == "changed" else pages(base))


if __name__ == "__main__":
    main(*sys.argv[1:])
