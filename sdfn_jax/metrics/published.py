"""The paper's results, for comparison with ours.

Liu, Wang, Nan, Jin, Pu: SDFN: Segmentation-based Deep Fusion Network for Thoracic Disease Classification in Chest X-ray
Images (2018).
"""

TEST_IMAGES = 25_596  # of the official test list, under the 2017 labels
# Table I: AUC on the 25,596 images of the official test list, by stage, in the order of `findings.FINDINGS`.
TABLE_ONE = {
    "entire": (0.762, 0.878, 0.822, 0.693, 0.791, 0.744, 0.707, 0.855, 0.737, 0.837, 0.912, 0.826, 0.760, 0.902),
    "lung": (0.773, 0.868, 0.827, 0.670, 0.807, 0.759, 0.708, 0.851, 0.738, 0.831, 0.909, 0.825, 0.783, 0.912),
    "fusion": (0.781, 0.885, 0.832, 0.700, 0.815, 0.765, 0.719, 0.866, 0.743, 0.842, 0.921, 0.835, 0.791, 0.911),
}
# The heads of its columns.
COLUMN_NAMES = {"entire": "Entire CXR", "lung": "Lung region", "fusion": "SDFN"}

# Of the classifiers (B.3, B.5); `size` is the images' height and width in pixels.
RECIPE = {"size": 224, "batch_size": 16, "num_epochs": 100, "learning_rate": 1e-4, "learning_rate_decay": 1e-5}

# Share of the 112,120 lung masks that needed none of the rules, and some rule (B.2.2).
NO_RULE_SHARE, SOME_RULE_SHARE = 0.9584, 0.0416

# Not the paper's: Wang et al., CVPR 2017, accuracy at T(IoBB) = 0.1 and average false positives.
WANG_ACCURACY = {
    "Atelectasis": 0.7277,
    "Cardiomegaly": 0.9931,
    "Effusion": 0.7124,
    "Infiltration": 0.7886,
    "Mass": 0.4352,
    "Nodule": 0.1645,
    "Pneumonia": 0.7500,
    "Pneumothorax": 0.4591,
}
WANG_FALSE_BOXES = {
    "Atelectasis": 0.8323,
    "Cardiomegaly": 0.3506,
    "Effusion": 0.7998,
    "Infiltration": 0.5589,
    "Mass": 0.6423,
    "Nodule": 0.6047,
    "Pneumonia": 0.9055,
    "Pneumothorax": 0.4776,
}
