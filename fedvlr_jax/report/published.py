"""Figures of the FedVLR paper (AAAI 2026, arXiv 2410.08478) that tables are put beside."""

# Table 3: parameters of a client, in thousands, by data set: of id, mlp and fedvlr for every
# backbone. Those of the variant vbpr are given for fedavg only.
_BACKBONES = ("fedavg", "fcf", "fedncf", "pfedrec", "fedrap")
_VARIANTS = ("id", "mlp", "fedvlr")
_CLIENT_THOUSANDS = {
    "Beauty": "22 68 80 | 22 68 80 | 88 403 440 | 22 68 80 | 45 91 103",
    "Cards": "8 24 37 | 8 24 37 | 75 273 311 | 8 24 37 | 16 33 45",
    "ML": "233 700 713 | 233 700 713 | 556 2556 2594 | 233 700 713 | 467 934 946",
    "KU": "287 107 120 | 35 107 120 | 108 527 564 | 287 107 120 | 71 143 155",
    "Dance": "107 321 334 | 858 321 334 | 1535 2525 2561 | 107 321 334 | 214 429 441",
    "Food": "72 216 228 | 576 216 228 | 921 1629 1666 | 72 216 228 | 144 288 300",
    "Movie": "161 485 497 | 161 485 497 | 1182 3797 3833 | 161 485 497 | 323 647 659",
}
_VBPR_FEDAVG = {
    "Beauty": 441,
    "Cards": 452,
    "ML": 2493,
    "KU": 495,
    "Dance": 11334,
    "Food": 838,
    "Movie": 17584,
}


def client_thousands(data: str, backbone: str, variant: str) -> int | None:
    """Table 3's parameters of a client in thousands, None for what the table does not have."""
    if variant == "vbpr":
        return _VBPR_FEDAVG.get(data) if backbone == "fedavg" else None
    if data not in _CLIENT_THOUSANDS or backbone not in _BACKBONES or variant not in _VARIANTS:
        return None
    row = _CLIENT_THOUSANDS[data].split("|")[_BACKBONES.index(backbone)]
    return int(row.split()[_VARIANTS.index(variant)])
