"""PadChest, Hospital San Juan de Alicante: frontal radiographs with labels of their reports."""
