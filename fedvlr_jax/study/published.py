"""Figures of the FedVLR paper (AAAI 2026, arXiv 2410.08478) that tables are put beside."""

# Table 3: parameters of a client, in thousands, by data set, backbone and variant. Those of the
# variant vbpr are given for FedAvg only.
_VARIANTS = ("id", "mlp", "fedvlr")
_CLIENT_THOUSANDS: dict[str, dict[str, tuple[int, int, int]]] = {
    "Beauty": {
        "fedavg": (22, 68, 80),
        "fcf": (22, 68, 80),
        "fedncf": (88, 403, 440),
        "pfedrec": (22, 68, 80),
        "fedrap": (45, 91, 103),
    },
    "Cards": {
        "fedavg": (8, 24, 37),
        "fcf": (8, 24, 37),
        "fedncf": (75, 273, 311),
        "pfedrec": (8, 24, 37),
        "fedrap": (16, 33, 45),
    },
    "ML": {
        "fedavg": (233, 700, 713),
        "fcf": (233, 700, 713),
        "fedncf": (556, 2556, 2594),
        "pfedrec": (233, 700, 713),
        "fedrap": (467, 934, 946),
    },
    "KU": {
        "fedavg": (287, 107, 120),
        "fcf": (35, 107, 120),
        "fedncf": (108, 527, 564),
        "pfedrec": (287, 107, 120),
        "fedrap": (71, 143, 155),
    },
    "Dance": {
        "fedavg": (107, 321, 334),
        "fcf": (858, 321, 334),
        "fedncf": (1535, 2525, 2561),
        "pfedrec": (107, 321, 334),
        "fedrap": (214, 429, 441),
    },
    "Food": {
        "fedavg": (72, 216, 228),
        "fcf": (576, 216, 228),
        "fedncf": (921, 1629, 1666),
        "pfedrec": (72, 216, 228),
        "fedrap": (144, 288, 300),
    },
    "Movie": {
        "fedavg": (161, 485, 497),
        "fcf": (161, 485, 497),
        "fedncf": (1182, 3797, 3833),
        "pfedrec": (161, 485, 497),
        "fedrap": (323, 647, 659),
    },
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
    row = _CLIENT_THOUSANDS.get(data, {}).get(backbone)
    return None if row is None or variant not in _VARIANTS else row[_VARIANTS.index(variant)]
