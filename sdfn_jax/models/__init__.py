"""The networks of the paper, in Flax Linen: U-Net (B.2), DenseNet-121 (B.3), SDFN (B.4)."""
