"""Which examples come when, from a prepared set of numbered arrays."""

import io
import itertools

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from sdfn_jax.core.errors import UserError
from sdfn_jax.training import input_pipeline
from sdfn_jax.training.input_pipeline import Examples, evaluation_batches, steps_per_epoch, training_batches

SPLITS = {"fold_0": range(5), "fold_1": range(5, 16), "fold_2": range(16, 23)}


class Numbered(tfds.core.GeneratorBasedBuilder):
    """Example i is full of i."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "entire": tfds.features.Tensor(shape=(4, 4), dtype=np.uint8, encoding="bytes"),
                    "mask_original": tfds.features.Image(shape=(None, None, 1)),
                    "name": tfds.features.Text(),
                    "labels": tfds.features.Tensor(shape=(14,), dtype=np.uint8),
                    "number": np.int32,
                    "boxes": tfds.features.Sequence(
                        {"finding": np.int32, "box": tfds.features.Tensor(shape=(4,), dtype=np.float32)}
                    ),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(numbers) for name, numbers in SPLITS.items()}

    def _generate_examples(self, numbers):
        for number in numbers:
            yield (
                number,
                {
                    "entire": np.full((4, 4), number, np.uint8),
                    "mask_original": io.BytesIO(png(number)),
                    "name": f"film-{number}-ä",
                    "labels": np.arange(14, dtype=np.uint8) % 2,
                    "number": number,
                    "boxes": [{"finding": number, "box": np.arange(4, dtype=np.float32)}] * (number % 3),
                },
            )


def png(number):
    file = io.BytesIO()
    Image.fromarray(np.full((3, 5), number, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    builder = Numbered(data_dir=tmp_path_factory.mktemp("tfds"), file_format="array_record")
    builder.download_and_prepare()
    return builder.data_dir


@pytest.fixture(scope="module")
def examples(prepared):
    return Examples(prepared, list(SPLITS))


def select(example):
    return {"entire": example["entire"], "number": example["number"]}


def numbers_of(batches):
    return [batch["number"].tolist() for batch in batches]


def test_an_example_is_decoded(examples):
    for example in (examples[index] for index in range(23)):
        number = int(example["number"])
        assert example["entire"].dtype == np.uint8 and example["entire"].shape == (4, 4)
        assert (example["entire"] == number).all()
        assert example["mask_original"] == png(number)
        assert example["name"] == f"film-{number}-ä"
        assert example["labels"].tolist() == [0, 1] * 7
        assert list(example["boxes"]["finding"]) == [number] * (number % 3)
        assert np.shape(example["boxes"]["box"]) in ((number % 3, 4), (0,))


def test_splits_stand_one_after_the_other(prepared, examples):
    parts = [Examples(prepared, [split]) for split in SPLITS]
    assert [len(part) for part in parts] == [5, 11, 7]
    assert len(examples) == 23
    alone = [part[index]["number"] for part in parts for index in range(len(part))]
    assert alone == [examples[index]["number"] for index in range(23)]
    for part, numbers in zip(parts, SPLITS.values(), strict=True):
        assert sorted(part[index]["number"] for index in range(len(part))) == list(numbers)
    turned = Examples(prepared, ["fold_2", "fold_0"])
    assert [turned[index]["number"] for index in range(12)] == alone[16:] + alone[:5]


def test_chosen_examples(prepared, examples):
    chosen = examples.take(np.array([22, 0, 5]))
    assert [chosen[index]["number"] for index in range(3)] == [examples[index]["number"] for index in (22, 0, 5)]
    again = chosen.take(np.array([2, 1]))
    assert [again[index]["number"] for index in range(2)] == [examples[5]["number"], examples[0]["number"]]
    assert (len(examples), len(chosen), len(again)) == (23, 3, 2)
    given = Examples(prepared, list(SPLITS), np.array([22, 0, 5]))
    assert [given[index]["number"] for index in range(3)] == [chosen[index]["number"] for index in range(3)]


def test_some_fields_of_every_example_come_in_order(examples):
    chosen = examples.take(np.array([22, 3]))
    found = list(chosen.fields("name", "number", "boxes"))
    for example, whole in zip(found, chosen, strict=True):
        assert example.keys() == {"name", "number", "boxes"}
        assert (example["name"], example["number"]) == (whole["name"], whole["number"])
        assert example["name"] == f"film-{example['number']}-ä"
        np.testing.assert_equal(example["boxes"], whole["boxes"])


def test_a_split_that_is_not_there_is_named(prepared):
    with pytest.raises(UserError, match=r"1.0.0 has no split 'fold_3'; it has fold_0, fold_1, fold_2\. .*not written"):
        Examples(prepared, ["fold_0", "fold_3"])


def test_an_epoch_is_a_permutation_of_its_own(examples):
    orders = {}
    for seed, epoch in itertools.product((0, 1), (0, 1, 2)):
        batches = numbers_of(training_batches(examples, select, 1, seed, epoch))
        orders[seed, epoch] = tuple(itertools.chain(*batches))
        assert sorted(orders[seed, epoch]) == list(range(23))
    assert len(set(orders.values())) == 6
    again = numbers_of(training_batches(examples, select, 1, 1, 2))
    assert tuple(itertools.chain(*again)) == orders[1, 2]


def test_the_remainder_waits(examples):
    batches = list(training_batches(examples, select, 4, seed=0, epoch=0))
    assert steps_per_epoch(examples, 4) == len(batches) == 5
    assert [batch["entire"].shape for batch in batches] == [(4, 4, 4)] * 5
    assert all((batch["entire"] == batch["number"][:, None, None]).all() for batch in batches)
    seen = set(itertools.chain(*numbers_of(batches)))
    assert len(seen) == 20
    later = set(itertools.chain(*numbers_of(training_batches(examples, select, 4, seed=0, epoch=1))))
    assert seen | later == set(range(23))  # who waited comes in the order of this next epoch


@pytest.mark.parametrize("first_step", range(6))
def test_a_resumed_epoch_is_the_rest_of_an_uninterrupted_one(examples, first_step):
    whole = numbers_of(training_batches(examples, select, 4, seed=3, epoch=7))
    rest = numbers_of(training_batches(examples, select, 4, seed=3, epoch=7, first_step=first_step))
    assert rest == whole[first_step:]
    assert len(rest) == 5 - first_step


def test_an_epoch_does_not_hang_on_how_many_threads_read(examples, monkeypatch):
    first = numbers_of(training_batches(examples, select, 4, seed=0, epoch=0))
    monkeypatch.setattr(input_pipeline, "_READ_AHEAD", input_pipeline.grain.ReadOptions(7, 20))
    assert numbers_of(training_batches(examples, select, 4, seed=0, epoch=0)) == first


def test_a_set_smaller_than_a_batch_is_a_users_mistake(examples):
    assert steps_per_epoch(examples, 23) == 1
    with pytest.raises(UserError, match=r"has 23 images, fewer than one batch of 24; lower --config.batch_size"):
        next(training_batches(examples, select, 24, seed=0, epoch=0))


@pytest.mark.parametrize(("batch_size", "counts"), [(4, [4] * 5 + [3]), (23, [23]), (1, [1] * 23), (30, [23])])
def test_evaluation_reads_every_example_once_and_in_order(examples, batch_size, counts):
    expected = [examples[index]["number"] for index in range(23)]
    batches = list(evaluation_batches(examples, select, batch_size))
    assert [count for _, count in batches] == counts
    assert {batch["entire"].shape for batch, _ in batches} == {(batch_size, 4, 4)}
    assert [number for batch, count in batches for number in batch["number"][:count]] == expected
    last, count = batches[-1]
    assert (last["number"][count:] == expected[-1]).all()
    assert (last["entire"][count:] == expected[-1]).all()


def test_sharded_batches_are_those_of_the_host(examples):
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    batches = list(training_batches(examples, select, 4, seed=0, epoch=0))
    for count in (0, 1, 5):
        on_device = list(input_pipeline.to_device(iter(batches[:count]), sharding))
        assert len(on_device) == count
        for batch, expected in zip(on_device, batches, strict=False):
            assert batch["entire"].sharding == sharding
            assert batch["entire"].dtype == np.uint8
            np.testing.assert_array_equal(batch["entire"], expected["entire"])


def test_one_batch_is_under_way_while_another_is_used(examples):
    drawn = []
    batches = ({"number": drawn.append(number) or np.array([number])} for number in range(5))
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    on_device = input_pipeline.to_device(batches, sharding)
    assert next(on_device)["number"] == 0
    assert drawn == [0, 1]
    assert next(on_device)["number"] == 1
    assert drawn == [0, 1, 2]


def test_a_fault_while_reading_is_raised(examples):
    def broken(example):
        raise ValueError(f"{example['name']} is torn")

    with pytest.raises(ValueError, match="film-.* is torn"):
        list(evaluation_batches(examples, broken, 4))
