"""VinDr-CXR, Hospital 108 and Hanoi Medical University Hospital: PA radiographs, each read by radiologists."""
