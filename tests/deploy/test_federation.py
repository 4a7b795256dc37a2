"""Real processes, real TLS, real keys: who gets in, what is refused, what comes of it, and what survives a kill."""

import csv
import json
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from deployed import Deployed, call, command, wait_for
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from gateways import Caller, besieged
from in_process import run_in_process
from table_form import FORM

from fedapp.common.errors import DataError
from fedapp.deploy.folders import read_site, read_superlink
from fedapp.deploy.identity import new_server_certificate

pytestmark = pytest.mark.slow

TASK = (
    "data=csv data.label=ill data.numeric=[age,dose] data.categorical={sex:[f,m]} data.classes=[no,yes]"
    " model=logistic_regression"
)
RUN = f"{TASK} federation.fraction_train=1 federation.min_clients=2 run.seed=0"


def write_table(path: Path, seed: int, *, header: str = "age,dose,sex,ill") -> Path:
    values = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        for i in range(60):
            cells = [f"{values.normal(50 + 10 * seed, 5):.3f}", f"{values.lognormal(seed):.3f}", "fm"[i % 2]]
            writer.writerow([*cells, ["no", "yes"][i % 3 == 0]])
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("deployed")
    for i, site in enumerate(("site-A", "site-B")):
        write_table(place / f"{site}.csv", i)
    write_table(place / "site-C.csv", 2, header="age,drug,sex,ill")
    return place


@pytest.fixture(scope="module")
def federation(place: Path) -> Iterator[Deployed]:
    """A SuperLink and provisioned sites; SuperNodes are started by the tests."""
    deployed = Deployed(place / "federation", "site-A", "site-B", "site-C", "site-D")
    try:
        deployed.superlink()
        yield deployed
    finally:
        deployed.end(*list(deployed.running))


@pytest.fixture(scope="module")
def trained(federation: Deployed, place: Path) -> Path:
    """The run directory of three rounds with two good sites out of four, while strangers try to get in, and hold 220
    connections to the gateway.

    Site B takes signed bundles only, and this one is signed; site D trusts another signer. Site C lacks a column.
    """
    for name in ("release", "other"):
        assert call("sign", "--key", str(place / f"{name}.key"), "--new-key").code == 0
    signed = call("sign", "--key", str(place / "release.key"), "--superlink", str(federation.root / "superlink"))
    assert signed.code == 0, signed.output
    trust = {"site-B": "release", "site-D": "other"}
    for site in ("site-A", "site-B", "site-C", "site-D"):
        data = place / f"{'site-A' if site == 'site-D' else site}.csv"
        signer = ["--trusted-entities", str(place / f"{trust[site]}.key.trusted.yaml")] if site in trust else []
        federation.supernode(site, "--data", str(data), *signer)
    strangers(federation, place)
    for site in ("site-A", "site-B", "site-C", "site-D"):
        federation.running[site].wait_for("SuperNode ID")
    overrides = [*RUN.split(), "federation.num_rounds=3", "federation.min_supernodes=4"]
    folder = read_superlink(federation.root / "superlink")
    trusted = ssl.create_default_context(cafile=str(folder.authority))
    with besieged(folder.port, trusted, Caller(), idle=200, slow=20):
        done = federation.run(*overrides, f"run.output_dir={place / 'run'}")
    assert done.code == 0, done.output
    assert done.run_dir == place / "run"
    return place / "run"


def strangers(federation: Deployed, place: Path) -> None:
    """SuperNodes that must not get in, each trying now."""
    data = ["--data", str(place / "site-A.csv")]
    federation.provision("--site", "site-X")
    (federation.root / "superlink" / "keys" / "site-X.pub").unlink()
    federation.supernode("unregistered", *data, folder=federation.root / "site-X")
    foreign = Deployed(place / "foreign", "site-A")
    mixed = shutil.copytree(federation.root / "site-B", place / "mixed", ignore=shutil.ignore_patterns("state"))
    shutil.copy(foreign.root / "site-A" / "ca.crt", mixed / "ca.crt")
    federation.supernode("foreign authority", *data, folder=mixed)
    address = read_site(federation.root / "site-A").superlink
    federation.start(
        "plain text",
        str(Path(sys.executable).with_name("flower-supernode")),
        "--insecure",
        "--superlink",
        address,
        "--port",
        "0",
    )


def summary(directory: Path) -> dict[str, object]:
    return dict(json.loads((directory / "summary.json").read_text()))


def test_it_trains_the_same_model_as_a_simulation(trained: Path, place: Path, tmp_path: Path) -> None:
    sites = [{"data-path": str(place / f"site-{x}.csv"), "partition-id": i} for i, x in enumerate("ABC")]
    alone = run_in_process(tmp_path / "run", f"{RUN} federation.num_rounds=3", node_configs=sites)
    assert summary(trained)["model_sha256"] == summary(alone)["model_sha256"]
    assert (summary(trained)["rounds"], summary(trained)["clients"]) == (3, 2)
    assert summary(trained)["rejected"] == 0


def test_the_preflight_names_the_site_and_the_site_alone_says_what_its_table_lacks(
    trained: Path, federation: Deployed
) -> None:
    faults = summary(trained)["faults"]
    assert isinstance(faults, dict)
    assert faults["client 2 (site-C)"] == DataError.abroad
    assert "no column 'dose'" in federation.running["site-C"].printed
    told = [path.read_text() for path in trained.rglob("*") if path.suffix in {".json", ".jsonl", ".html", ".log"}]
    assert told
    assert not any("drug" in text for text in told)  # a column of site C's own


def test_a_bundle_that_no_trusted_entity_signed_is_refused_and_a_signed_one_is_not(trained: Path) -> None:
    faults = summary(trained)["faults"]
    assert isinstance(faults, dict)
    refused = [why for who, why in faults.items() if who.startswith("SuperNode")]
    assert len(refused) == 1
    assert "could not be verified" in refused[0]
    clients = {json.loads(line)["client"] for line in (trained / "clients.jsonl").read_text().splitlines()}
    assert clients == {0, 1}  # site B, which asks for a signature, took part


def test_strangers_are_refused_and_told_why(trained: Path, federation: Deployed) -> None:
    words = {
        "unregistered": "the SuperLink does not admit this key",
        "foreign authority": "not by this federation's authority",
        "plain text": "",
    }
    for name, reason in words.items():
        printed = federation.running[name].printed
        assert "SuperNode ID" not in printed, printed
        assert reason in printed
    assert federation.running["plain text"].process.poll() not in (None, 0)
    assert summary(trained)["supernodes"] == 2
    federation.end("unregistered", "foreign authority", "plain text")


def test_an_expired_certificate_is_refused(federation: Deployed, place: Path) -> None:
    """A server with an expired certificate of the right authority, and for comparison one with a valid one."""
    authority = federation.root / "ca"
    folder = shutil.copytree(federation.root / "site-A", place / "expired", ignore=shutil.ignore_patterns("state"))
    for days, words in ((-1, "certificate has expired"), (1, "Server error '501")):
        key, certificate = new_server_certificate(
            (authority / "ca.key").read_bytes(),
            (authority / "ca.crt").read_bytes(),
            ["127.0.0.1"],
            timedelta(days=days),
        )
        (place / "server.pem").write_bytes(key + certificate)
        with subprocess.Popen(
            [sys.executable, "-c", HTTPS, str(place / "server.pem")], stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            settings = (folder / "site.toml").read_text()
            address = read_site(folder).superlink
            (folder / "site.toml").write_text(settings.replace(address, f"127.0.0.1:{port}"))
            running = federation.supernode(f"expired {days}", "--data", str(place / "site-A.csv"), folder=folder)
            running.wait_for("SuperNode ended")
            federation.end(f"expired {days}")
            server.kill()
        assert words in running.printed
        assert "SuperNode ID" not in running.printed


# Answers every call with 404, by TLS.
HTTPS = """
import http.server, ssl, sys
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_what_supernodes_reach_starts_no_runs(federation: Deployed) -> None:
    """Flower lets whoever reaches its control interface start runs: it must not be on the SuperNodes' port."""
    folder = read_superlink(federation.root / "superlink")
    context = ssl.create_default_context(cafile=str(folder.authority))

    def status(port: int, path: str) -> int:
        headers = {"content-type": PROTOBUF_MEDIA_TYPE, "accept": PROTOBUF_MEDIA_TYPE}
        request = Request(f"https://127.0.0.1:{port}{path}", b"", headers)
        try:
            with urlopen(request, context=context, timeout=20) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code

    assert status(folder.control_port, "/v1/control/list-nodes") == 200
    for path in ("/v1/control/list-nodes", "/v1/control/start-run", "/v1/runtime/get-nodes", "/health", "/docs"):
        assert status(folder.port, path) == 404, path
    for path in ("/v1/fleet/../control/list-nodes", "/v1/fleet/%2e%2e/control/list-nodes", "/v1/fleet/register-node"):
        assert status(folder.port, path) == 404, path
    assert status(folder.port, "/v1/fleet/get-run") == 401  # Flower's own answer to who shows no key


def test_a_revoked_site_is_cut_off_at_once(federation: Deployed, trained: Path) -> None:
    superlink, site = federation.running["superlink"], federation.running["site-D"]
    federation.provision("--revoke", "site-D")
    superlink.wait_for("site-D: unregistered")
    site.wait_for("SuperNode ended")
    wait_for(lambda: "does not admit this key" in site.printed, lambda: site.printed)
    federation.end("site-C", "site-D")


def ledger_rounds(file: Path) -> list[int]:
    """The rounds that a ledger holds, in the order in which they were paid for."""
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [line["round"] for line in lines if "round" in line]


def test_kills_lose_no_ledger_and_no_run(federation: Deployed, place: Path) -> None:
    """A SuperNode is killed in the middle of a round, then the SuperLink between rounds; both come back."""
    federation.end(*[name for name in federation.running if name != "superlink"])  # they trained without privacy
    ledgers = {site: place / f"{site}.ledger" for site in ("site-A", "site-B")}
    for site, ledger in ledgers.items():
        data = ["--data", str(place / f"{site}.csv"), "--ledger", str(ledger), "--max-epsilon", "100"]
        federation.supernode(site, *data).wait_for("SuperNode ID")
    directory, site = place / "killed", federation.running["site-A"]
    overrides = [
        *PRIVATE.split(),
        *("federation.min_clients=1", "federation.min_supernodes=2", "federation.exclude_after=null"),
        *("federation.round_timeout=60", "federation.max_failed_rounds=50"),  # a slow machine is no failure
    ]
    endless = [*overrides, "federation.num_rounds=1000", f"run.output_dir={directory}"]
    run = federation.start("run", *command("run", "--folder", str(federation.root / "operator"), *endless))
    wait_for(lambda: ledger_rounds(ledgers["site-A"]), lambda: run.printed)  # paid for, and not yet answered
    site.child("flower-supernode").kill()
    site.wait_for("SuperNode ended")
    wait_for(lambda: 2 in replied(directory).values() or run.process.poll() is not None, lambda: run.printed)
    assert run.process.poll() is None, run.printed
    superlink = federation.running["superlink"]
    superlink.child("flower-superlink").kill()
    assert superlink.process.wait(timeout=60) == 1
    assert "flower-superlink ended" in superlink.printed
    assert run.process.wait(timeout=120) == 1
    assert not (directory / "summary.json").exists()
    federation.superlink()
    last = max(replied(directory)) + 2
    done = federation.run(*overrides, f"federation.num_rounds={last}", f"run.resume={directory}")
    assert done.code == 0, done.output
    assert done.run_dir == directory
    assert (summary(directory)["status"], summary(directory)["rounds"]) == ("finished", last)
    lines = [json.loads(line) for line in (directory / "clients.jsonl").read_text().splitlines()]
    for client, ledger in enumerate(ledgers.values()):
        paid = ledger_rounds(ledger)
        trained_in = [line["round"] for line in lines if line["client"] == client and line["rejected"] is None]
        assert trained_in
        assert set(trained_in) <= set(paid)  # no training that was not paid for
    lost = [line["round"] for line in lines if line["client"] == 0 and line["rejected"]]
    assert lost[0] == ledger_rounds(ledgers["site-A"])[0]  # what was paid for when it was killed stays paid for


PRIVATE = (
    f"{RUN} {FORM} privacy=dp_sgd privacy.noise_multiplier=20 privacy.sample_rate=0.5 train.val_fraction=0"
    " federation.final_evaluation=false data.scaling=given data.means={age:50,dose:5} data.deviations={age:20,dose:20}"
    " privacy.accountant=rdp"
)


def replied(directory: Path) -> dict[int, int]:
    """By round, how many clients' updates counted."""
    file = directory / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {line["round"]: line.get("replied", 0) for line in lines}
