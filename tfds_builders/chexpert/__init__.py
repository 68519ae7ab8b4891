"""CheXpert, Stanford: frontal radiographs with labels that were mined from reports, some uncertain."""
