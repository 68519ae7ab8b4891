"""BRAX, Hospital Israelita Albert Einstein: frontal radiographs with labels that were mined from Portuguese reports."""
