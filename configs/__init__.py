"""The stages: every number of each, with a demo variant."""
