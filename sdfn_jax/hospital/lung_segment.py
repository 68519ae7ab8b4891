"""The lung mask as a DICOM Segmentation, in the film's own grid of pixels."""

from highdicom import AlgorithmIdentificationSequence, seg
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from sdfn_jax.hospital import objects
from sdfn_jax.inference.prediction import Reading


def make(reading: Reading, header: Dataset) -> Dataset:
    """Returns the segmentation of a reading that has a lung mask: one binary segment, both lungs."""
    segment = seg.SegmentDescription(
        segment_number=1,
        segment_label="Lungs",
        segmented_property_category=codes.cid7150.AnatomicalStructure,
        segmented_property_type=codes.SCT.Lung,
        algorithm_type=seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=objects.ALGORITHM,
            family=codes.cid7162.ArtificialIntelligence,
            version=objects.version(reading.provenance),
            parameters=objects.checkpoints(reading.provenance),
        ),
    )
    segment.SegmentDescription = " ".join(objects.warnings_of(reading.provenance))
    made = seg.Segmentation(
        source_images=[header],
        pixel_array=reading.lung_mask[None],
        segmentation_type=seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        content_label="LUNGS",
        content_description=objects.RESEARCH,
        omit_empty_frames=False,
        **objects.common(header, reading, "lungs"),
    )
    objects.orient(made, header)
    return made
