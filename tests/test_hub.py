"""hf:// addresses, against a server of the test's own that answers as the Hugging Face hub does."""

import hashlib
import http.server
import threading

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import save

from configs import classifier
from sdfn_jax.core.errors import UserError
from sdfn_jax.models import backbones
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.models.weights import hub, weights_file
from sdfn_jax.workflow import stages, starting_weights
from sdfn_jax.workflow.classifier_stages import PublishedWeights

constants = pytest.importorskip("huggingface_hub.constants")

COMMITS = {"main": "a" * 40, "v2": "b" * 40}
SHAPE = {"growth_rate": 4, "block_sizes": (1,), "init_features": 4, "bottleneck": 2}
PLACE = "hf://radiology/densenet-tiny/weights/model.safetensors"


def content(revision):
    model = backbones.build("densenet", SHAPE)
    variables = initial_variables(model, len(revision), jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32), train=False)
    return save(weights_file.branch_tensors(variables))


class Handler(http.server.BaseHTTPRequestHandler):
    """`/owner/name/resolve/revision/file`: the headers that huggingface_hub reads, and the file."""

    def do_HEAD(self):
        self.server.asked.append(self.path)
        repository, _, rest = self.path.partition("/resolve/")
        revision, _, file = rest.partition("/")
        if repository != "/radiology/densenet-tiny":
            return self.refuse("RepoNotFound")
        commit = COMMITS.get(revision, revision)
        if commit not in COMMITS.values():
            return self.refuse("RevisionNotFound")
        if file != "weights/model.safetensors":
            return self.refuse("EntryNotFound")
        data = self.server.files[commit]
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        return data

    def do_GET(self):
        if data := self.do_HEAD():
            self.wfile.write(data)

    def refuse(self, code):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.files = [], {commit: content(revision) for revision, commit in COMMITS.items()}
        # What HF_ENDPOINT and HF_HUB_CACHE set when huggingface_hub is first imported.
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_weights_come_from_the_hub_once_with_their_commit(server):
    model = backbones.build("densenet", SHAPE)
    found = weights_file.load_weights(PLACE, model)
    assert found.file == f"{PLACE}@{COMMITS['main']}" and found.sha256 in {
        hashlib.sha256(data).hexdigest() for data in server.files.values()
    }
    count = len(server.asked)
    server.files.clear()  # what is there is not asked for again, not even whether it has changed
    assert weights_file.load_weights(PLACE, model).sha256 == found.sha256
    assert len(server.asked) == count


def test_a_revision_is_asked_for_by_name_or_commit(server):
    for revision in ("v2", COMMITS["v2"]):
        found = weights_file.load_weights(f"{PLACE}@{revision}", backbones.build("densenet", SHAPE))
        assert found.file == f"{PLACE}@{COMMITS['v2']}"
        assert found.sha256 == hashlib.sha256(server.files[COMMITS["v2"]]).hexdigest()
    assert {path.split("/")[4] for path in server.asked} == {"v2"}  # the commit was in the cache by then


def test_a_job_downloads_them_first_and_its_checkpoint_will_name_the_commit(server, tmp_path):
    config = classifier.get_config("entire,demo")
    config.workdir = str(tmp_path)
    config.pretrained, config.model = f"{PLACE}@v2", ConfigDict(SHAPE)
    (stage,) = PublishedWeights.where_needed([config])
    assert (stage.status.state, stage.reads) == ("to do", f"{PLACE}@v2")
    assert starting_weights.digest(config) is None
    stage.run()
    assert PublishedWeights.where_needed([config])[0].there
    assert starting_weights.digest(config) == hashlib.sha256(server.files[COMMITS["v2"]]).hexdigest()
    _, metadata = stages._starts(config, {}, ())
    assert metadata["pretrained"]["file"] == f"{PLACE}@{COMMITS['v2']}"


@pytest.mark.parametrize("place", [PLACE + "@v3", PLACE.replace("model", "other"), PLACE.replace("tiny", "huge")])
def test_what_is_not_there_is_a_sentence(server, place):
    with pytest.raises(UserError, match=r"hf://.* has no such repository, revision or file, or it is not public"):
        hub.parse(place).fetch()


def test_offline_it_says_what_to_do(server, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # of the same name in the environment
    with pytest.raises(
        UserError, match="cannot be downloaded .*not in the cache .*Without a connection: fetch the file"
    ):
        hub.parse(PLACE).fetch()


@pytest.mark.parametrize("address", ["hf://radiology", "hf://radiology/tiny", "hf://a/b/c@", "hf:///b/c"])
def test_another_address_is_refused(address):
    with pytest.raises(UserError, match="an address on the hub is hf://owner/name/file"):
        weights_file.remote(address, backbones.BACKBONES["densenet"])


def test_imagenet_weights_of_convnext_are_timms_on_the_hub():
    there = weights_file.remote("imagenet", backbones.BACKBONES["convnext_tiny"])
    assert there.url == "hf://timm/convnext_tiny.fb_in1k/model.safetensors@main"
    assert weights_file.remote("weights.safetensors", backbones.BACKBONES["convnext_tiny"]) is None
