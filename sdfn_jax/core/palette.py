"""Every colour in the product, each under one name."""

# Okabe and Ito's: distinguishable with any colour vision.
BLUE, VERMILION, BLACK, GREEN = "#0072B2", "#D55E00", "#000000", "#009E73"
SERIES = (BLUE, VERMILION, BLACK, GREEN)  # a chart's, in this order
NETWORKS = {"entire": BLUE, "lung": VERMILION, "fusion": BLACK, "finetuned": GREEN}

# Charts.
GRID, REFERENCE, DIAGONAL, REMARK, WARNING = "#E4E4E4", "#999999", "#BBBBBB", "#666666", "#A00000"

# Heatmaps on radiographs. The boxes stand out on grey and on every colour of the heatmap.
HEATMAP = "inferno"  # Matplotlib's
HEATMAP_STRENGTH = 0.65  # the opacity of the hottest place; cold ones leave the radiograph bare
LUNG_BOX, REFERENCE_BOX = "#00E5FF", "#39FF14"

# Contact sheets of lung boxes, on a dark background.
SHEET_LUNG, SHEET_DROPPED, SHEET_MIRRORED, SHEET_BOX = "#00E678", "#FF4646", "#FFE100", "#50BEFF"
SHEET_PAPER, SHEET_TEXT, SHEET_TITLE = "#1E1E1E", "#DCDCDC", "#FFFFFF"

# Pages: {variable of the style sheet: colour}.
LIGHT = {
    "ink": "#1b1d21",
    "paper": "#fff",
    "soft": "#5b6270",
    "line": "#d9dce2",
    "band": "#f4f5f8",
    "link": "#0b57a4",
    "warn": "#8a1c1c",
    "warn-band": "#fdeeee",
    "chosen": "#e4eefa",
}
DARK = {
    "ink": "#e6e8ec",
    "paper": "#15171b",
    "soft": "#a2a9b6",
    "line": "#343841",
    "band": "#1d2026",
    "link": "#7db8f5",
    "warn": "#ffb4ab",
    "warn-band": "#3a1d1d",
    "chosen": "#1e2f44",
}
PRINT = {
    "ink": "#000",
    "paper": "#fff",
    "soft": "#444",
    "line": "#bbb",
    "band": "#f2f2f2",
    "warn": "#700",
    "warn-band": "#fff",
}


def rgb(colour: str) -> tuple[int, int, int]:
    """Returns `#RRGGBB` as (red, green, blue), 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
