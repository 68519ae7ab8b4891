"""SIIM-ACR Pneumothorax Segmentation: radiographs of ChestX-ray14 with masks of pneumothoraces."""
