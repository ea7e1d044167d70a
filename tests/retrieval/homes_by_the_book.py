"""Every pooling rule and rank by its definition, in plain Python over float64 NumPy rows: slow and easy to believe."""

from itertools import permutations

import numpy as np
from retrieval.by_the_book import settled


def unit(code):
    return code / np.sqrt(code @ code)


def mean(xs, ys, *_):
    x, y = sum(map(unit, xs)), sum(map(unit, ys))
    return unit(x) @ unit(y)


def best_pair(xs, ys, *_):
    return max(unit(x) @ unit(y) for x in xs for y in ys)


def by_kind(xs, ys, x_kinds, y_kinds):
    best = []
    for kind in set(x_kinds) & set(y_kinds) - {-1}:
        mine, theirs = ([a for a, b in zip(*side, strict=True) if b == kind] for side in ((xs, x_kinds), (ys, y_kinds)))
        best.append(best_pair(mine, theirs))
    return sum(best) / len(best) if best else -np.inf


def assignment(xs, ys, *_):
    few, many = sorted((xs, ys), key=len)
    pairings = (zip(few, order, strict=True) for order in permutations(many, len(few)))
    return max(sum(unit(x) @ unit(y) for x, y in pairs) / len(few) for pairs in pairings)


RULES = {"mean": mean, "best_pair": best_pair, "by_kind": by_kind, "assignment": assignment}


def centred(codes, kinds, stock, stock_kinds):
    """Unit codes less the mean unit code of their kind in the stock; zero where the stock has none of it."""
    left = []
    for code, kind in zip(codes, kinds, strict=True):
        alike = [unit(other) for other, theirs in zip(stock, stock_kinds, strict=True) if theirs == kind >= 0]
        left.append(unit(code) - sum(alike) / len(alike) if alike else 0 * code)
    return np.array(left)


def ranked(query, query_kinds, gallery, gallery_homes, gallery_kinds, rule, exclude=()):
    """(similarity, home) of every home that can be compared, nearest first."""
    found = []
    for home in sorted(set(gallery_homes) - {-1} - set(exclude)):
        own = [i for i, other in enumerate(gallery_homes) if other == home]
        value = RULES[rule](query, [gallery[i] for i in own], query_kinds, [gallery_kinds[i] for i in own])
        if value > -np.inf:
            found.append((settled(value), home))
    return sorted(found, key=lambda pair: (-pair[0], pair[1]))
