"""Every measure of every query from whole rows: all pairs in float64 by NumPy, and each row in order."""

import numpy as np
from retrieval.by_the_book import settled


def whole_rows(codes, labels, ids, groups, is_query, is_gallery, options):
    """The fields of ``Scores`` as arrays, but for the vote's confidence."""
    order = np.argsort(ids)
    codes, labels, ids, groups, is_query, is_gallery = (
        np.asarray(column)[order] for column in (codes, labels, ids, groups, is_query, is_gallery)
    )
    query, gallery = is_query & (labels >= 0), is_gallery & (labels >= 0)
    length = np.linalg.norm(codes, axis=1, keepdims=True)
    unit = codes / np.where(length == 0, 1, length)
    candidate = ~np.equal.outer(ids[query], ids[gallery])
    if options["exclude_group"]:
        candidate &= ~(np.equal.outer(groups[query], groups[gallery]) & (groups[query] >= 0)[:, None])
    positive = candidate & np.equal.outer(labels[query], labels[gallery])
    found = candidate & (length[query] > 0) & (length[gallery] > 0).T
    cosine = np.where(found, settled(unit[query] @ unit[gallery].T), -np.inf)
    later = positive if options["ties"] == "pessimistic" else np.zeros_like(positive)
    nearest = np.lexsort((np.broadcast_to(ids[gallery], cosine.shape), later, -cosine), axis=1)
    found, right = np.take_along_axis(found, nearest, 1), np.take_along_axis(positive & found, nearest, 1)
    place, r = np.arange(1, cosine.shape[1] + 1), positive.sum(1)
    counted = right & (place <= r[:, None])
    shown = max(*options["ks"], options["vote_k"], 6)
    voters = np.where(found, labels[gallery][nearest], -1)[:, : options["vote_k"]]
    return {
        "sample_ids": ids[query],
        "labels": labels[query],
        "positives": r,
        "candidates": candidate.sum(1),
        "rank": np.where(right.any(1), right.argmax(1) + 1, 0) if right.size else np.zeros(len(right), int),
        "precision": np.stack([right[:, :k].sum(1) / k for k in options["ks"]], 1),
        "average_precision_at_r": (counted.cumsum(1) / place * counted).sum(1) / np.maximum(r, 1),
        "published_top5": right[:, 1:6].any(1),
        "vote": np.array([_voted(row) for row in voters], int),
        "neighbour_ids": np.where(found, ids[gallery][nearest], -1)[:, :shown],
        "similarities": np.take_along_axis(cosine, nearest, 1)[:, :shown],
    }


def _voted(voters):
    voters = [voter for voter in voters.tolist() if voter >= 0]
    return max(voters, key=voters.count, default=-1)
