"""Search by words: text -> vector (``encoder``), ImageNet classes (``words``), ranking (``search``: start there)."""
