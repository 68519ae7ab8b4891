"""Every flag that a film can have, and the sentence shown for it. None of them quotes a header."""

from collections.abc import Collection

FLAGS = {
    # The image looks wrong (`quality`).
    "inverted": "Looks inverted: bone seems dark and air bright.",
    "rotated_90": "Appears to lie on its side.",
    "rotated_180": "Appears to be upside down.",
    "not_frontal_chest": "Does not look like a frontal chest radiograph.",
    "almost_empty": "Almost empty: nearly all its pixels are alike.",
    "border": "Over half of it is blank border or collimation.",
    "too_small": "Has fewer pixels than the networks read (224 on a side).",
    # The lung region looks wrong (`lungs/doubt.py`).
    "lung_region_fallback": "No plausible pair of lungs was found: the lung region may be wrong.",
    "lung_region_doubtful": "The lungs were found with little confidence: the lung region may be incomplete.",
    # DICOM elements that could not be used for the display (`dicom_display`) or the tables (`dicom_identifiers`).
    "dicom_voi_lut": "Its VOI LUT Sequence (0028,3010) cannot be used: shown by a later LUT, by its window, or by the "
    "range of its numbers.",
    "dicom_window": "Its first Window Center and Window Width (0028,1050 and 0028,1051) cannot be used: shown by a "
    "later window, or by the range of its numbers.",
    "dicom_voi_function": "Its VOI LUT Function (0028,1056) is unknown, so its windows cannot be used: shown by the "
    "range of its numbers.",
    "dicom_padding": "Its Pixel Padding Value or Range Limit (0028,0120 and 0028,0121) is not "
    "a number: padding may show.",
    "dicom_frames": "Its Number of Frames (0028,0008) is not a number: taken as 1.",
    "dicom_identifiers": "One of its identifiers (Patient ID, Study and SOP Instance UID) cannot be read: left empty.",
}

# Flags that can be corrected on request (`predict --fix`), and the sentence shown for the correction.
FIXES = {
    "inverted": "Grey values inverted.",
    "rotated_90": "Turned upright by a quarter turn.",
    "rotated_180": "Turned upright by a half turn.",
}


def in_order(names: Collection[str]) -> tuple[str, ...]:
    """Returns the names of flags in the order of `FLAGS`, each once."""
    return tuple(name for name in FLAGS if name in names)
