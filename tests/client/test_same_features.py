"""The same file on a device, by its SuperNode's node-config, and in a simulation gives the same features, by hash."""

import gzip
import hashlib
from pathlib import Path

import pytest

from fedapp.client.build import build_site
from fedapp.config import compose
from fedapp.data.shards import ClientData, local_data_path
from fedapp.learning.build import build_parts
from fedapp.learning.build_shards import build_shards
from fedapp.privacy.limits import own_limits
from fedapp.server.run import settled

ROWS = [
    (f"{20.25 + i * 37.5 % 900:.2f}", "fmx"[i % 3], f"2021-{1 + i % 12:02d}-{1 + i % 28:02d}", "yn"[i % 2])
    for i in range(40)
]


def written(delimiter: str = ",", decimal: str = ".", encoding: str = "utf-8", day: str = "ymd") -> bytes:
    lines = [delimiter.join(("dosis", "größe", "tag", "y"))]
    for dose, sex, date, label in ROWS:
        date = date if day == "ymd" else ".".join(reversed(date.split("-")))
        lines.append(delimiter.join((dose.replace(".", decimal), f" {sex} ", date, label)))
    return ("\n".join(lines) + "\n").encode(encoding)


FORMS = {
    "plain": written(),
    "german": written(";", ",", "cp1252", "dmy"),
    "wide characters": written("\t", ",", "utf-16"),
    "compressed": gzip.compress(written("|")),
}


def digest(data: ClientData) -> str:
    found = hashlib.sha256()
    for examples in (data.train, data.validation):
        found.update(examples.inputs.numpy().tobytes())
        found.update(examples.targets.numpy().tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("form", FORMS)
def test_the_same_table_gives_the_same_features(tmp_path: Path, form: str) -> None:
    (tmp_path / "sites").mkdir()
    for site in "ab":
        (tmp_path / "sites" / f"{site}.csv").write_bytes(FORMS[form if site == "a" else "plain"])
    overrides = ["data=csv", f"data.path={tmp_path / 'sites'}", "data.label=y", "model=mlp", "data.test_fraction=0"]
    config = compose([*overrides, "data.group=site", "partition=natural", "federation.num_clients=2"])
    parts = build_parts(config)
    shards = build_shards(config, parts)
    simulated = {digest(shards.of(client)) for client in (0, 1)}
    device = settled(config, parts)  # what is told to devices: columns, categories and classes, and no path
    device.data.update(path=None, group=None)
    node_config = {"data-path": str(tmp_path / "sites" / "a.csv"), "partition-id": 0}
    site = build_site(device, local_data_path(node_config), own_limits(node_config))
    assert digest(shards.of(0)) == digest(site.shards.of(0))
    assert len(simulated) == 2  # which rows are for validation follows from the client's number
    assert digest(build_shards(config, parts).of(0)) == digest(shards.of(0))
