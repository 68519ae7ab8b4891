"""What the DICOM results of a film have in common: who made them, from what, under which identifiers.

Identifiers are functions of the film's SOP Instance UID and of what read it (UUIDs of version 5, below 2.25; PS3.5,
B.2): the same networks reading the same film give the same objects again, not more of them.
"""

import dataclasses
import hashlib
import json
import uuid
from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset

from sdfn_jax.inference import film_page
from sdfn_jax.inference.batch import RESEARCH
from sdfn_jax.inference.prediction import Provenance, Reading

ALGORITHM = "sdfn_jax"
KINDS = ("report", "lungs", "picture")
_NAMESPACE = uuid.UUID("5fb1a0f0-7d2c-5f1e-9a53-6c0a8f3ce9b1")
_FIRST_SERIES = 9801  # Series Numbers that a modality is unlikely to give


def identity(provenance: Provenance, fixes: Sequence[str] = ()) -> str:
    """Returns a digest of what determines the results of a film: networks, calibration, this version, corrections."""
    made_by = dataclasses.asdict(provenance) | {"software": version(provenance)}
    if fixes:
        made_by["fixes"] = sorted(fixes)
    return hashlib.sha256(json.dumps(made_by, sort_keys=True, default=str).encode()).hexdigest()


def version(provenance: Provenance) -> str:
    """Returns the version of this package."""
    return provenance.software.get(ALGORITHM, "not installed")


def uid(film: str, made_by: str, kind: str) -> str:
    """Returns the identifier of a thing.

    Args:
      film: its SOP Instance UID.
      made_by: as `identity` returns it.
      kind: of `KINDS`, for an object; anything else for another thing.
    """
    return f"2.25.{uuid.uuid5(_NAMESPACE, f'{film} {made_by} {kind}').int}"


def series_uid(film: str, made_by: str, kind: str) -> str:
    """Returns the identifier of the series that an object of a film is in, alone; arguments as for `uid`."""
    return uid(film, made_by, f"series of the {kind}")


def checkpoints(provenance: Provenance) -> dict[str, str]:
    """Returns {network: digest of its checkpoint}."""
    found = {"checkpoint": provenance.checkpoint, "lung region generator": provenance.lrg_checkpoint}
    return {name: digest for name, digest in found.items() if digest is not None}


def warnings_of(provenance: Provenance) -> list[str]:
    """Returns the sentences that every object carries: that it is research, and what is doubtful about the networks."""
    return [RESEARCH, *film_page.notes(provenance)]


def common(header: Dataset, reading: Reading, kind: str) -> dict[str, Any]:
    """Returns the arguments that highdicom's constructors of all three objects share."""
    film, made_by = header.SOPInstanceUID, identity(reading.provenance, reading.fixes)
    return {
        "series_instance_uid": series_uid(film, made_by, kind),
        "series_number": _FIRST_SERIES + KINDS.index(kind),
        "sop_instance_uid": uid(film, made_by, kind),
        "instance_number": 1,
        "manufacturer": ALGORITHM,
        "manufacturer_model_name": ALGORITHM,
        "software_versions": version(reading.provenance),
        "device_serial_number": made_by[:16],
        "series_description": f"{ALGORITHM} {kind}. {RESEARCH}",
    }


def orient(image: Dataset, header: Dataset) -> None:
    """Says what an image shows, and which way round: empty if the film does not say (PS3.3, C.7.6.1)."""
    image.BodyPartExamined = "CHEST"
    image.PatientOrientation = header.get("PatientOrientation")
