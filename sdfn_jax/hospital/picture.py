"""The overlay of a reading as a Secondary Capture: for viewers that show neither reports nor segmentations."""

import numpy as np
from highdicom import CoordinateSystemNames, sc
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from sdfn_jax.hospital import objects
from sdfn_jax.inference import overlay
from sdfn_jax.inference.prediction import Reading


def make(reading: Reading, header: Dataset) -> Dataset:
    """Returns the picture that `predict` writes as PNG: heatmap of the most probable finding, or the lungs alone."""
    drawn = overlay.draw(reading, reading.top, drawings=bool(reading.provenance.drawings))
    made = sc.SCImage.from_ref_dataset(
        header,
        pixel_array=np.asarray(drawn),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system=CoordinateSystemNames.PATIENT,
        patient_orientation=("L", "F"),  # replaced below: highdicom requires one, and not every film has it
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **objects.common(header, reading, "picture"),
    )
    made.copy_patient_and_study_information(header)  # as highdicom does for the other two
    objects.orient(made, header)
    if header.get(
        "BurnedInAnnotation"
    ):  # the caption names no patient, but what is burned into the film is in here, too
        made.BurnedInAnnotation = header.BurnedInAnnotation
    made.DerivationDescription = " ".join(objects.warnings_of(reading.provenance))
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    made.SourceImageSequence = [source]
    return made
