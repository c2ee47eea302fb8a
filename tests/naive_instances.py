"""The rules of ScanNet's benchmark for instances, one by one over sets of points; and clusters by all pairs."""

import math


def ap_of_scans(scans, classes, threshold):
    """AP of each class. scans: (true instances as (class, set of points), predictions as (class, set, score)); what is
    in no true instance of a class is void."""
    return [_ap_of_class(scans, c, threshold) for c in range(classes)]


def _ap_of_class(scans, c, threshold):
    events, missed, any_true, any_found = [], 0, False, False
    for true, found in scans:
        outcome, lost, some_true, some_found = _one_scan(true, found, c, threshold)
        events, missed = events + outcome, missed + lost
        any_true, any_found = any_true or some_true, any_found or some_found
    if not any_true:
        return None
    return _area(events, missed) if any_found else 0.0


def _one_scan(true, found, c, threshold):
    """(score, right) of what counts, number of missed instances, and whether there are any true and found."""
    owned = set().union(*(points for _, points in true)) if true else set()
    mine = [points for kind, points in true if kind == c]
    guesses = [(points, score) for kind, points, score in found if kind == c and len(points) >= 100]
    first_of, scores, events, missed = {}, {}, [], 0
    for number, points in enumerate(mine):
        if len(points) < 100:
            continue
        for guess, (cover, score) in enumerate(guesses):
            if guess in first_of or _iou(points, cover) <= threshold:
                continue
            if number not in scores:
                first_of[guess], scores[number] = number, score
            else:
                events.append((min(score, scores[number]), False))
                scores[number] = max(score, scores[number])
        missed += number not in scores
    events += [(score, True) for score in scores.values()]
    for cover, score in guesses:
        if any(_iou(points, cover) > threshold for points in mine):
            continue
        excused = sum(point not in owned for point in cover)
        excused += sum(len(points & cover) for points in mine if len(points) < 100)
        if excused / len(cover) <= threshold:
            events.append((score, False))
    return events, missed, any(len(points) >= 100 for points in mine), bool(guesses)


def _iou(a, b):
    return len(a & b) / len(a | b)


def _area(events, missed):
    """Precision times half of the recall that is lost from the threshold before to the one after."""
    if not events:
        return 0.0
    total = sum(right for _, right in events) + missed
    points = []
    for least in sorted({score for score, _ in events}):
        kept = [right for score, right in events if score >= least]
        points.append((sum(kept) / len(kept), sum(kept) / total))
    points.append((1.0, 0.0))
    area = 0.0
    for i, (precision, _) in enumerate(points):
        before = points[max(i - 1, 0)][1]
        after = points[i + 1][1] if i + 1 < len(points) else 0.0
        area += precision * (before - after) / 2
    return area


def mean(values):
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else math.nan


def clusters(point, group, radius):
    """Sets of rows that chains of steps shorter than a radius join within a group."""
    left, found = set(range(len(point))), []
    while left:
        chain, cluster = [left.pop()], set()
        while chain:
            i = chain.pop()
            cluster.add(i)
            near = {j for j in left if group[i] == group[j] and sum((point[i] - point[j]) ** 2) < radius**2}
            left -= near
            chain += near
        found.append(frozenset(cluster))
    return set(found)
