"""Patient-level bootstrap of 14 AUCs at the size of the official test list, next to a loop over scikit-learn.

python -m benchmarks.bootstrap --output=bootstrap.json

Scores are drawn; images, patients (at most 184 images of one) and positives are as many as in the official test list.
"""

import argparse
import json
import os
import resource
import time

import numpy as np
import sklearn
from sklearn.metrics import roc_auc_score

from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.metrics import bootstrap

IMAGES, PATIENTS, LARGEST = 25_596, 2_797, 184
POSITIVES = (3255, 1065, 4648, 6088, 1712, 1615, 477, 2661, 1815, 925, 1093, 435, 1143, 86)  # 2017, the paper's order


def drawn_like_the_test_list(seed=0):
    rng = np.random.default_rng(seed)
    share = rng.lognormal(sigma=1.3, size=PATIENTS)
    owners = np.repeat(
        np.arange(PATIENTS), 1 + rng.multinomial(IMAGES - PATIENTS, share / share.sum()).clip(0, LARGEST - 1)
    )
    owners = np.append(owners, rng.integers(0, PATIENTS, IMAGES - len(owners)))
    illness = rng.normal(size=(PATIENTS, 14))[owners] + rng.normal(size=(IMAGES, 14))
    ranks = np.argsort(np.argsort(-illness, axis=0), axis=0)
    labels = (ranks < np.array(POSITIVES)).astype(np.uint8)
    logits = illness + 1.5 * rng.normal(size=(IMAGES, 14)) - 3
    return owners, labels, (1 / (1 + np.exp(-logits))).astype(np.float32).astype(np.float64)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--peer_replicates", type=int, default=5, help="of scikit-learn; its time is scaled up")
    parser.add_argument("--output", default="bootstrap.json")
    options = parser.parse_args()
    owners, labels, scores = drawn_like_the_test_list()

    begun = time.perf_counter()
    resamples = bootstrap.draw(owners, options.replicates, seed=0)
    ours = bootstrap.auc_replicates(labels, scores, resamples)
    our_seconds = time.perf_counter() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9

    difference, begun = 0.0, time.perf_counter()
    for replicate in range(options.peer_replicates):
        rows = np.repeat(np.arange(IMAGES), resamples.counts[resamples.patients, replicate].astype(int))
        peer = [roc_auc_score(labels[rows, column], scores[rows, column]) for column in range(14)]
        difference = max(difference, np.abs(peer - ours[:, replicate]).max())
    peer_seconds = (time.perf_counter() - begun) / options.peer_replicates * options.replicates

    record = {
        "images": IMAGES,
        "patients": PATIENTS,
        "classes": 14,
        "replicates": options.replicates,
        "seconds": round(our_seconds, 2),
        "scikit_learn_seconds": round(peer_seconds, 1),
        "scikit_learn_replicates_timed": options.peer_replicates,
        "times_faster": round(peer_seconds / our_seconds, 1),
        "largest_difference": difference,
        "peak_memory_gb": round(memory, 2),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "software": {"numpy": np.__version__, "scikit-learn": sklearn.__version__},
    }
    for name, value in record.items():
        print(f"{name:<32}{value}")
    with appears_when_complete(options.output) as path:
        path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
