"""A reading as a Structured Report: Comprehensive SR by template TID 1500, Measurement Report (PS3.16).

A group of measurements for the lungs, with the lung box as its region; one for each finding: probability, calibrated
probability, operating point, present or absent; and one for each box of its heatmap. A finding without an operating
point is called neither present nor absent.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from sdfn_jax.hospital import finding_codes, objects
from sdfn_jax.inference.prediction import Box, Reading
from sdfn_jax.radiographs.flags import FIXES, FLAGS

_CHEST_RADIOGRAPH = Code("399208008", "SCT", "Plain X-ray of chest")


def make(reading: Reading, header: Dataset) -> Dataset:
    """Returns the report of a reading that has findings."""
    report = _Groups(reading, header)
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(
                observer_type=codes.DCM.Device,
                observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                    uid=objects.uid(header.SOPInstanceUID, report.made_by, "device"),
                    name=objects.ALGORITHM,
                    manufacturer_name=objects.ALGORITHM,
                    model_name=objects.version(reading.provenance),
                ),
            )
        ),
        procedure_reported=_CHEST_RADIOGRAPH,
        imaging_measurements=[*report.lungs(), *report.findings()],
    )
    for sentence in _comments(reading):
        content[0].ContentSequence.append(
            sr.TextContentItem(codes.DCM.Comment, sentence, sr.RelationshipTypeValues.CONTAINS)
        )
    made = sr.ComprehensiveSR(
        evidence=[header],
        content=content,
        is_complete=True,
        **objects.common(header, reading, "report"),
    )
    made.CodingSchemeIdentificationSequence = [
        *made.get("CodingSchemeIdentificationSequence", []),
        finding_codes.scheme_item(),
    ]
    return made


def _comments(reading: Reading) -> Iterator[str]:
    yield from objects.warnings_of(reading.provenance)
    for name in reading.flags:
        yield f"Flag: {FLAGS[name]}"
    for name in reading.fixes:
        yield f"Corrected before it was read: {FIXES[name]}"
    for finding, why in reading.provenance.undecided.items():
        yield f"{finding_codes.of(finding).meaning}: neither present nor absent: {why}"


class _Groups:
    """The groups of measurements of one report."""

    def __init__(self, reading: Reading, header: Dataset):
        self.made_by = objects.identity(reading.provenance, reading.fixes)
        self._reading, self._header = reading, header
        self._algorithm = sr.AlgorithmIdentification(
            name=objects.ALGORITHM,
            version=objects.version(reading.provenance),
            parameters=[f"{name} {digest}" for name, digest in objects.checkpoints(reading.provenance).items()],
        )

    def lungs(self) -> Iterator[sr.PlanarROIMeasurementsAndQualitativeEvaluations]:
        """Yields the lungs' group, if they were looked for."""
        reading = self._reading
        if reading.lung_box is not None:
            numbers = [
                _number(finding_codes.LUNG_AREA, reading.lung_area),
                _number(finding_codes.CONFIDENCE, reading.confidence),
            ]
            yield self._region("lung box", codes.SCT.Lung, reading.lung_box, numbers)

    def findings(
        self,
    ) -> Iterator[sr.MeasurementsAndQualitativeEvaluations | sr.PlanarROIMeasurementsAndQualitativeEvaluations]:
        """Yields the groups of each finding, in the network's order: itself, then the boxes of its heatmap."""
        for finding, probability in self._reading.probabilities.items():
            code = finding_codes.of(finding)
            yield sr.MeasurementsAndQualitativeEvaluations(
                tracking_identifier=self._tracking(finding),
                finding_type=code,
                algorithm_id=self._algorithm,
                measurements=list(self._numbers(finding, probability)),
                qualitative_evaluations=list(self._decision(finding, code)),
                source_images=[sr.SourceImageForMeasurementGroup.from_source_image(self._header)],
            )
            for level, boxes in self._reading.marked.get(finding, {}).items():
                for number, box in enumerate(boxes, 1):
                    name = f"{finding}, heatmap box {number} at {level}"
                    yield self._region(name, code, box, [_number(finding_codes.HEATMAP_LEVEL, float(level))])

    def _numbers(self, finding: str, probability: float) -> Iterator[sr.Measurement]:
        yield _number(finding_codes.PROBABILITY, probability)
        calibrated = self._reading.calibrated.get(finding)
        if calibrated is not None:
            yield _number(finding_codes.CALIBRATED, calibrated)
        point = self._reading.provenance.thresholds.get(finding)
        if point is not None:
            yield _number(finding_codes.OPERATING_POINT, point.probability)

    def _decision(self, finding: str, code: sr.CodedConcept) -> Iterator[sr.QualitativeEvaluation]:
        positive = self._reading.decisions[finding]
        if positive is not None:
            yield sr.QualitativeEvaluation(code, codes.cid240.Present if positive else codes.cid240.Absent)

    def _region(
        self, name: str, code: Code | sr.CodedConcept, box: Box | Sequence[int], numbers: list[sr.Measurement]
    ) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
        left, top, right, bottom = box
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=self._tracking(name),
            referenced_region=sr.ImageRegion(
                sr.GraphicTypeValues.POLYLINE,
                np.array(corners, float),
                sr.SourceImageForRegion.from_source_image(self._header),
            ),
            finding_type=code,
            algorithm_id=self._algorithm,
            measurements=numbers,
        )

    def _tracking(self, name: str) -> sr.TrackingIdentifier:
        return sr.TrackingIdentifier(objects.uid(self._header.SOPInstanceUID, self.made_by, name), name)


def _number(name: sr.CodedConcept, value: float) -> sr.Measurement:
    return sr.Measurement(name, value, codes.UCUM.NoUnits)
