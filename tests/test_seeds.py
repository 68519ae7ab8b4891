"""Several seeds: their jobs, their ensemble as a network like any other, mean and standard deviation."""

import csv
import dataclasses
import json
import shutil
import statistics

import jax
import numpy as np
import pytest
from small import SIZE, extractor_config, fusion_config

import sdfn_jax
from sdfn_jax.core import checkpoint, ensemble, networks, run_metadata
from sdfn_jax.core.errors import UserError
from sdfn_jax.inference import formats, outputs, publish
from sdfn_jax.inference.columns import columns
from sdfn_jax.metrics import calibration, ensembles
from sdfn_jax.metrics.evaluation import Evaluation, Origin, evaluation_folder, write_evaluation
from sdfn_jax.metrics.predictions import Predictions
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.radiographs.findings import FINDINGS
from sdfn_jax.reporting import report, table_one
from sdfn_jax.training import tasks
from sdfn_jax.workflow import plan, seeds
from tests.peers import import_peer

SEEDS = (0, 1, 2)


def save(run, seed, **changes):
    """A network with drawn weights as a trained run."""
    config = extractor_config("entire", str(run))
    config.seed = seed
    config.update(changes)
    task = tasks.classification(config)
    variables = initial_variables(task.model, seed, task.inputs, train=False)
    metadata = run_metadata.make(config, {"data": "d", "films": "f"}, data_version="drawn", drawings=True)
    checkpoint.save_best(run, 1, variables, metadata)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three seeds' networks and their ensemble, as the main job places them."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [folder / "entire", folder / "seed_1" / "entire", folder / "seed_2" / "entire"]
    for run, seed in zip(runs, SEEDS, strict=True):
        save(run, seed)
    networks.make_ensemble(folder / "ensemble" / "entire", runs)
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "elsewhere")


@pytest.fixture(scope="module")
def film():
    return np.random.default_rng(0).integers(0, 256, (40, 48)).astype(np.uint8)


@pytest.fixture(scope="module")
def readings(trained, film):
    """[of the ensemble, of each member]."""
    folders = ["ensemble/entire", "entire", "seed_1/entire", "seed_2/entire"]
    return [sdfn_jax.load(trained / folder)(film) for folder in folders]


class TestJobs:
    def test_each_seed_has_its_own_folders_and_shares_lungs_and_data(self, tmp_path):
        config = fusion_config(tmp_path)
        config.seeds, config.seed = 3, 5
        first, second, _ = seeds.of_each(config)
        alone = fusion_config(tmp_path)
        alone.seed = 5
        assert first.to_dict() == alone.copy_and_resolve_references().to_dict()
        assert (second.workdir, second.seed) == (f"{tmp_path}/seed_6/fusion", 6)
        for branch in ("entire", "lung"):
            assert (second[branch].workdir, second[branch].seed) == (f"{tmp_path}/seed_1/{branch}", 1)
        assert second.lrg.to_dict() == alone.lrg.to_dict()
        assert second.data.to_dict() == alone.data.to_dict()
        assert [stage.workdir for stage in plan.classifiers(seeds.end(config))] == [
            f"{tmp_path}/ensemble/{stage}" for stage in ("entire", "lung", "fusion")
        ]

    def test_one_seed_is_the_job_as_it_was(self, tmp_path):
        config = fusion_config(tmp_path)
        assert seeds.of_each(config) == [config]
        assert seeds.end(config) is config

    def test_every_seed_is_trained_before_the_ensembles_are_made(self, tmp_path):
        config = fusion_config(tmp_path)
        config.seeds = 2
        names = [stage.name for stage in plan.job(config)]
        assert names[-8:] == [
            *(f"{what}, seed 0" for what in ("extractor, entire branch", "extractor, lung branch", "fusion network")),
            *(f"{what}, seed 1" for what in ("extractor, entire branch", "extractor, lung branch", "fusion network")),
            *("ensembles of 2 seeds", "evaluation on test"),
        ]
        fusion = plan.job(config)[-3]
        assert [each.name for each in fusion.needs[1:]] == names[-5:-3]


class TestMembers:
    def test_an_ensemble_moves_with_its_runs(self, trained, copy):
        there, here = (ensemble.read(each / "ensemble" / "entire") for each in (trained, copy))
        assert here.digest == there.digest
        assert here.seeds == SEEDS
        assert [member.run.resolve() for member in here.members] == [
            (copy / run).resolve() for run in ("entire", "seed_1/entire", "seed_2/entire")
        ]

    def test_its_digest_is_another_for_other_members(self, copy):
        before = networks.metadata(copy / "ensemble" / "entire")["digest"]
        networks.make_ensemble(copy / "ensemble" / "entire", [copy / "entire", copy / "seed_1" / "entire"])
        assert networks.metadata(copy / "ensemble" / "entire")["digest"] != before

    def test_a_missing_member_is_named(self, copy):
        shutil.rmtree(copy / "seed_1" / "entire")
        with pytest.raises(UserError, match=r"its member .*seed_1/entire holds no trained checkpoint: the main job"):
            sdfn_jax.load(copy / "ensemble" / "entire")

    def test_a_member_trained_again_is_named(self, copy):
        save(copy / "seed_2" / "entire", 7)
        with pytest.raises(UserError, match=r"its member .*seed_2/entire has been trained again since"):
            sdfn_jax.load(copy / "ensemble" / "entire")

    @pytest.mark.parametrize(
        ("seed", "changes", "said"),
        [
            (3, {"learning_rate": 0.5}, "learning_rate is 0.003 and 0.5"),
            (3, {"data": {"label_version": "v2020"}}, r'data.label_version is "2017" and "v2020"'),
            (0, {}, "both have the seed 0"),
            (3, {"stage": "lung"}, 'stage: "entire" and "lung"'),
        ],
    )
    def test_networks_of_other_recipes_make_no_ensemble(self, copy, seed, changes, said):
        save(copy / "other", seed, **changes)
        with pytest.raises(UserError, match=f"entire and .*other do not make an ensemble, .*: {said}"):
            networks.make_ensemble(copy / "more", [copy / "entire", copy / "other"])
        assert not (copy / "more").exists()

    def test_a_record_changed_by_hand_is_refused(self, copy):
        record = copy / "ensemble" / "entire" / ensemble.RECORD_FILE
        record.write_text(record.read_text().replace("seed_2", "seed_9"))
        with pytest.raises(UserError, match=r"ensemble.json: not the record of an ensemble .changed since"):
            sdfn_jax.load(copy / "ensemble" / "entire")


class TestPrediction:
    def test_probabilities_are_the_means_and_the_spread_their_standard_deviation(self, readings):
        whole, *each = readings
        for name in FINDINGS:
            values = [one.probabilities[name] for one in each]
            assert whole.probabilities[name] == pytest.approx(statistics.fmean(values), abs=1e-12)
            assert whole.spread[name] == pytest.approx(statistics.stdev(values), abs=1e-12)
        assert len(set(whole.spread.values())) == 14
        assert all(one.spread == {} for one in each)

    def test_its_maps_are_parts_of_the_mean_of_the_logits(self, readings):
        whole, *each = readings
        np.testing.assert_allclose(
            whole.maps["entire"], np.mean([one.maps["entire"] for one in each], axis=0), atol=1e-6
        )

    def test_its_features_are_those_of_its_members(self, trained, film):
        whole, *each = (
            sdfn_jax.load(trained / folder).features(film) for folder in ("ensemble/entire", "entire", "seed_1/entire")
        )
        assert whole.shape[1] == 3 * each[0].shape[1]
        np.testing.assert_array_equal(whole[:, : 2 * each[0].shape[1]], np.concatenate(each, axis=1))

    def test_the_folder_of_ensembles_is_taken_too(self, trained):
        model = sdfn_jax.load(trained / "ensemble")
        assert model.provenance.checkpoint == ensemble.read(trained / "ensemble" / "entire").digest
        assert [member["seed"] for member in model.provenance.members] == list(SEEDS)

    def test_the_spread_has_a_column_only_of_ensembles(self, readings):
        whole, one, *_ = readings
        chosen = columns(whole.provenance)
        cells = dict(zip(chosen.header, chosen.values(outputs.row(whole, {})), strict=True))
        assert cells["spread_Mass"] == whole.spread["Mass"]
        assert not any("spread" in name for name in columns(one.provenance).header)

    def test_calibration_is_that_of_the_ensembles_own_validation(self, copy, film):
        folder = copy / "ensemble" / "entire"
        evaluation = evaluated(ensemble.read(folder).digest, seed=0, split="validation", images=400)
        calibration.calibrate(folder, evaluation)
        model = sdfn_jax.load(folder)
        reading = model(film)
        scaling = calibration.make(evaluation).findings["Mass"].scaling
        assert reading.calibrated["Mass"] == pytest.approx(float(scaling(np.float64(reading.probabilities["Mass"]))))
        # One of a member's checkpoint is not taken for it.
        member = ensemble.read(folder).members[0].checkpoint
        calibration.write(folder, dataclasses.replace(calibration.make(evaluation), checkpoint=member))
        assert "belongs to another checkpoint" in sdfn_jax.load(folder).gaps


class TestExport:
    @pytest.mark.parametrize("name", ["out.stablehlo", "out.onnx"])
    def test_one_graph_has_all_members(self, trained, tmp_path, name):
        assert "within" in formats.export(trained / "ensemble" / "entire", tmp_path / name)
        images = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE)).astype(np.uint8)
        if name.endswith("onnx"):
            session = import_peer("onnxruntime").InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"])
            found = session.run(None, {"entire": images})[0]
        else:
            call, record = formats.read_stablehlo(tmp_path / name)
            found = call(images)
            assert [member["seed"] for member in record["members"]] == list(SEEDS)
        each = []
        for run in ("entire", "seed_1/entire", "seed_2/entire"):
            variables, metadata = checkpoint.read_best(trained / run)
            each.append(jax.jit(formats.probabilities([variables], metadata))(images))
        np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-6)

    def test_files_of_one_network_are_refused(self, trained, tmp_path):
        with pytest.raises(UserError, match=r"is an ensemble, and a .safetensors file holds the weights of one"):
            formats.export(trained / "ensemble" / "entire", tmp_path / "out.safetensors")
        with pytest.raises(UserError, match=r"is an ensemble, and a .zip file holds one network: export each"):
            publish.publish(trained / "ensemble" / "entire", tmp_path / "out.zip")


def evaluated(digest, seed, split="test", images=60, stage="entire", findings=FINDINGS):
    """An evaluation with drawn probabilities; labels and images are the same for every seed."""
    labels = np.random.default_rng(99).integers(0, 2, (images, len(findings))).astype(np.uint8)
    generator = np.random.default_rng(seed)
    probabilities = np.clip(0.3 + 0.2 * labels + generator.normal(0, 0.2, labels.shape), 0, 1)
    names = tuple(f"{number}.png" for number in range(images))
    origin = Origin(stage, digest, "chestxray14/drawn/1.0.0", "2017", split, True, seed)
    return Evaluation(origin, Predictions(names, np.arange(images), probabilities, labels, findings))


def evaluate_all(runs, findings=FINDINGS):
    """Writes the ensemble's evaluation, and its members' next to it."""
    found = ensemble.read(runs / "ensemble" / "entire")
    each = [evaluated(member.checkpoint, member.seed, findings=findings) for member in found.members]
    for member, evaluation in zip(found.members, each, strict=True):
        write_evaluation(evaluation_folder(member.run, "test"), evaluation)
    folder = evaluation_folder(runs / "ensemble" / "entire", "test")
    write_evaluation(folder, ensembles.combine(found, each))


class TestEvaluation:
    @pytest.fixture
    def whole(self, copy):
        evaluate_all(copy)
        return ensembles.read(copy / "ensemble" / "entire", "test")

    def test_it_is_the_mean_of_its_members_and_never_worse_than_they_are_on_average(self, whole):
        each = np.stack([member.predictions.probabilities for member in whole.members])
        found, labels = whole.predictions.probabilities, whole.predictions.labels
        np.testing.assert_allclose(found, each.sum(axis=0) / 3, rtol=1e-15)
        log_loss = import_peer("sklearn.metrics").log_loss
        for index in range(14):  # cross-entropy is convex
            of_members = [log_loss(labels[:, index], one[:, index]) for one in each]
            assert log_loss(labels[:, index], found[:, index]) <= np.mean(of_members)

    def test_members_of_other_images_are_refused(self, copy):
        found = ensemble.read(copy / "ensemble" / "entire")
        each = [evaluated(member.checkpoint, member.seed, images=60 - member.seed) for member in found.members]
        with pytest.raises(UserError, match="different images or labels"):
            ensembles.combine(found, each)

    def test_a_members_evaluation_of_another_checkpoint_is_refused(self, copy, whole):
        write_evaluation(copy / "seed_1" / "entire" / "evaluation" / "test", evaluated("other", 1))
        with pytest.raises(UserError, match=r"seed_1/entire/evaluation/test is of another checkpoint"):
            ensembles.read(copy / "ensemble" / "entire", "test")

    def test_table_one_has_mean_and_standard_deviation_of_each_finding_and_of_the_mean(self, whole, tmp_path):
        table = table_one.TableOne.of([whole])
        area = import_peer("sklearn.metrics").roc_auc_score
        labels = whole.predictions.labels
        aucs = [
            [area(labels[:, finding], member.predictions.probabilities[:, finding]) for finding in range(14)]
            for member in whole.members
        ]
        own = [area(labels[:, finding], whole.predictions.probabilities[:, finding]) for finding in range(14)]
        table_one.write(tmp_path / "table.csv", table)
        with (tmp_path / "table.csv").open() as file:
            rows = list(csv.DictReader(file))
        for finding, row in enumerate(rows[:-1]):
            values = [of_seed[finding] for of_seed in aucs]
            assert float(row["entire"]) == pytest.approx(statistics.fmean(values), abs=1e-6)
            assert float(row["entire_sd"]) == pytest.approx(statistics.stdev(values), abs=1e-6)
            assert [float(row[f"entire_seed_{seed}"]) for seed in SEEDS] == pytest.approx(values, abs=1e-6)
            assert float(row["entire_ensemble"]) == pytest.approx(own[finding], abs=1e-6)
        means = [statistics.fmean(of_seed) for of_seed in aucs]
        assert float(rows[-1]["entire"]) == pytest.approx(statistics.fmean(means), abs=1e-6)
        assert float(rows[-1]["entire_sd"]) == pytest.approx(statistics.stdev(means), abs=1e-6)
        text = table_one.text(table)
        assert f"{statistics.fmean(means):.3f} ({statistics.stdev(means):.3f})  0.802" in text
        each = ", ".join(f"{mean:.3f} (seed {seed})" for mean, seed in zip(means, SEEDS, strict=True))
        said = " ".join(text.split())
        assert f"Entire CXR, mean AUC of each: {each}; ensemble of 3: {statistics.fmean(own):.3f}" in said
        assert "seed 0/1/2" in said

    def test_the_report_of_one_finding_names_it_and_says_its_auc_once(self, copy, tmp_path):
        evaluate_all(copy, ("Tuberculosis",))
        page = report.write_report([copy / "ensemble" / "entire"], tmp_path / "report", None, (), 20)
        assert "AUC of Tuberculosis" in (text := page.read_text()) and "1 findings" not in text
        with (page.parent / "tables" / "seeds.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["of"] for row in rows] == [*(f"seed {seed}" for seed in SEEDS), "mean", "sd", "ensemble"]
        assert not (page.parent / "tables" / "seeds_entire.csv").exists()

    def test_the_record_of_an_evaluation_names_all_seeds(self, copy, whole):
        record = json.loads((copy / "ensemble" / "entire" / "evaluation" / "test" / "evaluation.json").read_text())
        assert record["seeds"] == list(SEEDS)
        assert record["checkpoint"] == ensemble.read(copy / "ensemble" / "entire").digest
