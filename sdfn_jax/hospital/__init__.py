"""Results where radiology looks for them: as DICOM objects in the film's study, and back into the archive."""
