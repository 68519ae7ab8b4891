"""The paper's results, for comparison with ours.

Liu, Wang, Nan, Jin, Pu: SDFN: Segmentation-based Deep Fusion Network for Thoracic Disease Classification in Chest X-ray
Images (2018).
"""

TEST_IMAGES = 25_596  # of the official test list, under the 2017 labels
# Table I, its own networks: AUC on the official test list, by stage, in the order of `findings.FINDINGS`.
TABLE_ONE = {
    "entire": (0.762, 0.878, 0.822, 0.693, 0.791, 0.744, 0.707, 0.855, 0.737, 0.837, 0.912, 0.826, 0.760, 0.902),
    "lung": (0.773, 0.868, 0.827, 0.670, 0.807, 0.759, 0.708, 0.851, 0.738, 0.831, 0.909, 0.825, 0.783, 0.912),
    "fusion": (0.781, 0.885, 0.832, 0.700, 0.815, 0.765, 0.719, 0.866, 0.743, 0.842, 0.921, 0.835, 0.791, 0.911),
}
# What its Table I compares itself with, on the same list: Wang et al. (CVPR 2017), Yao et al. (arXiv:1803.07703, 2018)
# and Gündel et al. (arXiv:1803.04565, 2018). Their published means are 0.745, 0.761 and 0.807.
OTHERS = {
    "Wang": (0.700, 0.810, 0.759, 0.661, 0.693, 0.669, 0.658, 0.799, 0.703, 0.805, 0.833, 0.786, 0.684, 0.872),
    "Yao": (0.733, 0.856, 0.806, 0.673, 0.777, 0.724, 0.684, 0.805, 0.711, 0.806, 0.842, 0.743, 0.724, 0.775),
    "Gündel": (0.767, 0.883, 0.828, 0.709, 0.821, 0.758, 0.731, 0.846, 0.745, 0.835, 0.895, 0.818, 0.761, 0.896),
}
# The heads of the columns of its own networks, and of one that it does not have.
COLUMN_NAMES = {"entire": "Entire CXR", "lung": "Lung region", "fusion": "SDFN", "finetuned": "SDFN, fine-tuned"}

SIGNIFICANT = 0.01  # the p below which it calls a difference significant (section C)

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
