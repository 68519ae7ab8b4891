"""RSNA Pneumonia Detection Challenge: radiographs of ChestX-ray14 with boxes of opacities suspicious for pneumonia."""
