"""Codes for what a Structured Report says.

A finding has a code of DICOM's own context groups (PS3.16) or of SNOMED CT where its meaning is the label's; otherwise
it has one of a private scheme (PS3.3, 8.2), which stands for nothing but the label of the data that the network was
trained on. So have the labels of other class lists, unless they are among these.
"""

import re

from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from sdfn_jax.radiographs.findings import display_name

SCHEME = "99SDFN"
_SCT, _DCM = "SCT", "DCM"
# {label: (code, scheme, meaning)}. The label Hernia does not say which; a thickened pleura has no code that we are sure
# of. Sources: a context group of PS3.16, or SNOMED CT's International Edition.
_PUBLIC = {
    "Atelectasis": ("46621007", _SCT, "Atelectasis"),  # SNOMED CT
    "Cardiomegaly": ("8186001", _SCT, "Cardiomegaly"),  # SNOMED CT
    "Effusion": ("60046008", _SCT, "Pleural effusion"),  # CID 8134
    "Infiltration": ("112121", _DCM, "Infiltrate"),  # CID 6102
    "Mass": ("4147007", _SCT, "Mass"),  # CID 6102
    "Nodule": ("27925004", _SCT, "Nodule"),  # CID 6102
    "Pneumonia": ("233604007", _SCT, "Pneumonia"),  # SNOMED CT
    "Pneumothorax": ("36118008", _SCT, "Pneumothorax"),  # CID 6102
    "Consolidation": ("95436008", _SCT, "Lung consolidation"),  # SNOMED CT
    "Edema": ("19242006", _SCT, "Pulmonary edema"),  # CID 3700
    "Emphysema": ("87433001", _SCT, "Pulmonary emphysema"),  # SNOMED CT
    "Fibrosis": ("51615001", _SCT, "Fibrosis of lung"),  # SNOMED CT
}


def of(finding: str) -> CodedConcept:
    """Returns the code of a finding."""
    if finding in _PUBLIC:
        return CodedConcept(*_PUBLIC[finding])
    return private(finding, display_name(finding))


def private(name: str, meaning: str) -> CodedConcept:
    """Returns a code of the private scheme, in its spelling: capital letters, digits and underscores."""
    return CodedConcept(re.sub(r"\W", "_", name, flags=re.ASCII).upper(), SCHEME, meaning[:64])


PROBABILITY = private("PROBABILITY", "Probability, not calibrated")
CALIBRATED = private("CALIBRATED", "Probability, calibrated on validation")
OPERATING_POINT = private("OPERATING_POINT", "Present from this probability, not calibrated")
LUNG_AREA = private("LUNG_AREA", "Share of the film that is lung")
CONFIDENCE = private("CONFIDENCE", "Dice coefficient that the mask is expected to have")
HEATMAP_LEVEL = private("HEATMAP_LEVEL", "Heatmap level of the box, of 255")


def scheme_item() -> Dataset:
    """Returns what the private scheme is (PS3.3, C.12.1.1, Coding Scheme Identification Sequence)."""
    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeName = "sdfn_jax: labels of the data a network was trained on, and its numbers"
    item.CodingSchemeResponsibleOrganization = "The developers of sdfn_jax"
    return item
