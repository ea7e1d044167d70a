"""Every measure of every query by its definition, in plain Python over float64 NumPy rows: slow and easy to believe."""

from collections import Counter

import numpy as np


def settled(cosine):
    """The cosine as ranks go by it: whole multiples of 2^-32, then float32."""
    return np.float32(np.round(cosine * 2**32) / 2**32)


def reference(codes, labels, ids, groups, roles, options):
    """A dict a query, in ascending order of id; a row with a negative label is neither query nor gallery."""
    everything = sorted(zip(ids, codes, labels, groups, roles, strict=True), key=lambda row: row[0])
    rows = [row for row in everything if row[2] >= 0]
    found = []
    for query_id, query, label, group, (is_query, _) in rows:
        if not is_query:
            continue
        candidates = [
            (other_id, code, other == label)
            for other_id, code, other, other_group, (_, is_gallery) in rows
            if is_gallery and other_id != query_id
            if not (options["exclude_group"] and group >= 0 and group == other_group)
        ]
        ranked = sorted(
            (-settled(query @ code / np.sqrt(query @ query) / np.sqrt(code @ code)),
             right and options["ties"] == "pessimistic", other_id, right)
            for other_id, code, right in candidates
            if query.any() and code.any()
        )  # fmt: skip
        right = [row[-1] for row in ranked]
        found.append(measures(query_id, label, right, [row[2] for row in ranked], candidates, options, labels, ids))
    return found


def measures(query_id, label, right, order, candidates, options, labels, ids):
    r = sum(candidate[2] for candidate in candidates)
    label_of = dict(zip(ids, labels, strict=True))
    voters = [label_of[other] for other in order[: options["vote_k"]]]
    counts = Counter(voters)
    best = max(counts.values(), default=0)
    return {
        "id": query_id,
        "positives": r,
        "candidates": len(candidates),
        "rank": right.index(True) + 1 if True in right else 0,
        "precision": [sum(right[:k]) / k for k in options["ks"]],
        "ap": sum(sum(right[: i + 1]) / (i + 1) for i in range(min(r, len(right))) if right[i]) / r if r else 0.0,
        "vote": next((voter for voter in voters if counts[voter] == best), -1),
        "top5": any(right[1:6]),
        "neighbours": order,
        "label": label,
    }
