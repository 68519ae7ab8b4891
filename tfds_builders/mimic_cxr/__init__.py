"""MIMIC-CXR-JPG, Beth Israel Deaconess Medical Center: frontal radiographs with labels mined from reports."""
