"""Every loss against written-out loops over pairs, frames and samples in float64, and where its gradient goes."""

import math

import numpy as np
import pytest
import torch

from train.methods import losses

T, P, S, D = 3, 3, 6, 5  # frames, pairs, samples, width


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def dot(a, b) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def cosine_d(p, z) -> float:
    """Eq. 1, number by number."""
    return -dot(p, z) / (math.sqrt(dot(p, p)) * math.sqrt(dot(z, z)))


def test_eq_1_is_the_negative_cosine():
    p, z = drawn(4, D), drawn(4, D, seed=1)
    expected = [cosine_d(*rows) for rows in zip(p.tolist(), z.tolist(), strict=True)]
    assert losses.negative_cosine(p, z).tolist() == pytest.approx(expected, rel=1e-12)


def test_eqs_3_4_and_7_8_equal_a_loop_over_pairs_and_samples():
    p, z = drawn(P, 2, S, D), drawn(P, 2, S, D, seed=1)
    expected = 0.0
    for pair in range(P):
        term = 0.0
        for a in range(S):
            forth = cosine_d(p[pair, 0, a].tolist(), z[pair, 1, a].tolist())
            back = cosine_d(p[pair, 1, a].tolist(), z[pair, 0, a].tolist())
            term += 0.5 * forth + 0.5 * back
        expected += term / S
    for stop in losses.STOP_GRADIENTS:
        assert losses.pair_loss(p, z, stop).item() == pytest.approx(expected, rel=1e-12)


def test_eqs_5_6_equal_a_loop_over_frames_and_samples():
    p3, z3, p4, z4 = (drawn(T, S, D, seed=seed) for seed in range(4))
    expected = 0.0
    for i in range(T):
        term = 0.0
        for a in range(S):
            at_4d = cosine_d(p3[i, a].tolist(), z4[i, a].tolist())
            at_3d = cosine_d(p4[i, a].tolist(), z3[i, a].tolist())
            term += 0.5 * at_4d + 0.5 * at_3d
        expected += term / S
    for stop in losses.STOP_GRADIENTS:
        assert losses.frame_loss(p3, z3, p4, z4, stop).item() == pytest.approx(expected, rel=1e-12)


def trained(loss: torch.Tensor, **leaves: torch.Tensor) -> set[str]:
    """Names of the leaves that the loss trains."""
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {name for name, g in zip(leaves, gradients, strict=True) if g is not None and g.abs().max() > 0}


@pytest.mark.parametrize("stop, expected", [("conventional", "p"), ("printed", "p"), ("none", "p z")])
def test_eq_3_trains_p_and_stops_at_z(stop, expected):
    leaf = {name: drawn(P, 2, S, D, seed=seed).requires_grad_() for seed, name in enumerate("pz")}
    assert trained(losses.pair_loss(leaf["p"], leaf["z"], stop), **leaf) == set(expected.split())


@pytest.mark.parametrize("stop, expected", [("conventional", "p3 p4"), ("printed", "z3 z4"), ("none", "p3 p4 z3 z4")])
def test_eq_5_stops_where_its_reading_says(stop, expected):
    leaf = {name: drawn(T, S, D, seed=seed).requires_grad_() for seed, name in enumerate(("p3", "z3", "p4", "z4"))}
    assert trained(losses.frame_loss(*leaf.values(), stop), **leaf) == set(expected.split())


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_before_it_is_summed(half):
    p, z = drawn(P, 2, S, D).to(half), drawn(P, 2, S, D, seed=1).to(half)
    loss = losses.pair_loss(p, z, "conventional")
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(losses.pair_loss(p.double(), z.double(), "conventional").item(), rel=1e-5)


def test_features_of_length_zero_give_finite_gradients():
    p = torch.zeros(1, 2, S, D, requires_grad=True)
    losses.pair_loss(p, drawn(1, 2, S, D).float(), "conventional").backward()
    assert bool(p.grad.isfinite().all())


# Hardest-contrastive ------------------------------------------------------------------------------------------------


def normalised(row: list[float]) -> list[float]:
    length = math.sqrt(dot(row, row))
    return [x / length for x in row]


def distance(a: list[float], b: list[float]) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def looped_hardest(first, second, same, positive_margin, negative_margin) -> float:
    """The equation, sample by sample."""
    positive, forth, back = [], [], []
    for b in range(len(first)):
        one, two = [[normalised(row) for row in rows[b].tolist()] for rows in (first, second)]
        for i in range(len(one)):
            positive.append(max(0.0, distance(one[i], two[i]) - positive_margin) ** 2)
            others = [k for k in range(len(one)) if not same[b][i][k]]
            if others:
                forth.append(max(0.0, negative_margin - min(distance(one[i], two[k]) for k in others)) ** 2)
                back.append(max(0.0, negative_margin - min(distance(two[i], one[k]) for k in others)) ** 2)
    negative = sum(forth) / max(1, len(forth)) + sum(back) / max(1, len(back))
    return sum(positive) / len(positive) + 0.5 * negative


def sharing(*voxel: list[int], size: int) -> torch.Tensor:
    return losses.same_voxel(torch.tensor(voxel), size)


@pytest.mark.parametrize(
    "voxels",
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7]),
        ([0, 0, 2, 3, 4, 5, 5, 7], [0, 1, 1, 3, 4, 4, 6, 7]),  # some samples share a voxel in one frame
        ([0, 0, 0, 0, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7]),  # the first sequence has no negatives at all
    ],
    ids=["apart", "sharing", "none"],
)
def test_hardest_contrastive_equals_a_loop_over_samples(voxels):
    first, second = drawn(2, 4, D), drawn(2, 4, D, seed=1)
    second = first + 0.5 * second  # distances on both sides of the margins
    same = sharing(*voxels, size=2)
    ours = losses.hardest_contrastive(first, second, same, 0.1, 1.4).item()
    assert ours == pytest.approx(looped_hardest(first, second, same.tolist(), 0.1, 1.4), rel=1e-9)
    assert ours > 0


def test_hardest_contrastive_gradient_equals_that_of_the_written_out_minimum():
    first, second = drawn(2, 4, D).requires_grad_(), drawn(2, 4, D, seed=1).requires_grad_()
    same = sharing(list(range(8)), size=2)
    ours = torch.autograd.grad(losses.hardest_contrastive(first, second, same, 0.1, 1.4), (first, second))
    one, two = (x / x.norm(dim=-1, keepdim=True) for x in (first, second))
    apart = torch.cdist(one, two).masked_fill(torch.eye(4, dtype=torch.bool), torch.inf)
    hinge = lambda values: (1.4 - values).clamp(min=0).square().mean()  # noqa: E731
    expected = ((one - two).norm(dim=-1) - 0.1).clamp(min=0).square().mean()
    expected = expected + 0.5 * (hinge(apart.min(2).values) + hinge(apart.min(1).values))
    for mine, theirs in zip(ours, torch.autograd.grad(expected, (first, second)), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=1e-8)


def test_samples_of_another_sequence_are_no_negatives():
    first = torch.eye(4, dtype=torch.float64).reshape(2, 2, 4)
    first[1, 0] = first[0, 0]  # the same scan twice in a batch
    assert losses.hardest_contrastive(first, first, sharing([0, 1, 2, 3], size=2), 0.1, 1.4).item() == 0


def test_positives_within_and_negatives_beyond_the_margins_cost_nothing_and_have_no_gradient():
    first = torch.eye(3, dtype=torch.float64)[None].requires_grad_()
    second = torch.eye(3, dtype=torch.float64)[None] + 0.01
    loss = losses.hardest_contrastive(first, second, torch.eye(3, dtype=torch.bool)[None], 0.1, 1.39)
    (gradient,) = torch.autograd.grad(loss, first)
    assert loss.item() == 0 and gradient.abs().max() == 0


def test_equal_features_give_finite_gradients():
    first = torch.ones(1, 4, D, requires_grad=True)
    same = torch.eye(4, dtype=torch.bool)[None]
    losses.hardest_contrastive(first, first.detach().clone(), same, 0.1, 1.4).backward()
    assert bool(first.grad.isfinite().all())


def test_samples_that_share_a_voxel_in_any_set_are_the_same():
    same = losses.same_voxel(torch.tensor([[0, 0, 1, 2, 3, 4], [5, 6, 6, 7, 8, 7]]), 2)
    assert same[0].tolist() == [[True, True, False], [True, True, True], [False, True, True]]
    assert same[1].tolist() == [[True, False, True], [False, True, False], [True, False, True]]


# Pooling and spread -------------------------------------------------------------------------------------------------


def test_match_average_is_the_mean_over_the_steps_that_have_the_point():
    features = drawn(9, D)
    row = torch.tensor([[[0, 1, 2], [3, -1, 4]], [[-1, -1, 8], [-1, -1, -1]]])
    out = losses.match_average(features, row)
    for index in ((0, 0), (0, 1), (1, 0), (1, 1)):
        present = [features[r].tolist() for r in row[index].tolist() if r >= 0]
        expected = [sum(column) / len(present) for column in zip(*present, strict=True)] if present else [0.0] * D
        assert out[index].tolist() == pytest.approx(expected, rel=1e-12)


def test_match_average_gives_absent_steps_no_gradient():
    features = drawn(3, D).requires_grad_()
    (gradient,) = torch.autograd.grad(losses.match_average(features, torch.tensor([[1, -1]])).sum(), features)
    assert gradient.abs().sum(1).tolist() == [0, D, 0]


def test_spread_is_one_for_even_directions_and_zero_for_one():
    assert losses.spread(drawn(20_000, 32)).item() == pytest.approx(1, abs=0.01)
    assert losses.spread(torch.ones(50, 32) * torch.arange(1, 51)[:, None]).item() == pytest.approx(0, abs=1e-6)
    half = torch.cat([drawn(20_000, 32)[:, :1].abs() + 9, torch.zeros(20_000, 31)], 1)
    assert losses.spread(half).item() == pytest.approx(0, abs=1e-6)


def test_spread_equals_its_definition_number_by_number():
    z = drawn(3, 4, D)
    rows = [normalised(row) for row in z.reshape(-1, D).tolist()]
    deviation = []
    for column in zip(*rows, strict=True):
        mean = sum(column) / len(column)
        deviation.append(math.sqrt(sum((x - mean) ** 2 for x in column) / len(column)))
    assert losses.spread(z).item() == pytest.approx(sum(deviation) / D * math.sqrt(D), rel=1e-12)


# PointInfoNCE -------------------------------------------------------------------------------------------------------


def looped_info_nce(first, second, same, temperature) -> float:
    """The cross-entropy of each point's own among all samples of its sequence, both ways."""
    found = []
    for b in range(len(first)):
        one, two = [[normalised(row) for row in rows[b].tolist()] for rows in (first, second)]
        for anchors, others in ((one, two), (two, one)):
            for i, anchor in enumerate(anchors):
                kept = [k for k in range(len(others)) if k == i or not same[b][i][k]]
                score = {k: math.exp(dot(anchor, others[k]) / temperature) for k in kept}
                found.append(-math.log(score[i] / sum(score.values())))
    return sum(found) / len(found)


@pytest.mark.parametrize("voxels", [[0, 1, 2, 3, 4, 5, 6, 7], [0, 0, 2, 3, 4, 5, 5, 5]], ids=["apart", "sharing"])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_info_nce_equals_a_loop_over_samples(voxels, temperature):
    first, second = drawn(2, 4, D), drawn(2, 4, D, seed=1)
    same = sharing(voxels, size=2)
    ours = losses.point_info_nce(first, second, same, temperature).item()
    assert ours == pytest.approx(looped_info_nce(first, second, same.tolist(), temperature), rel=1e-9)


def test_info_nce_of_points_that_all_share_a_voxel_is_zero_and_of_equal_features_the_logarithm_of_their_number():
    first = drawn(1, 4, D)
    assert losses.point_info_nce(first, -first, sharing([0, 0, 0, 0], size=1), 0.1).item() == 0
    equal = torch.ones(1, 4, D)
    assert losses.point_info_nce(equal, equal, sharing([0, 1, 2, 3], size=1), 0.1).item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("temperature", [1e-3, 1e-4])
def test_info_nce_of_a_small_temperature_is_what_the_nearest_negative_is_ahead(temperature):
    first, second = drawn(2, 4, D), drawn(2, 4, D, seed=1)
    cosine = losses.unit(first) @ losses.unit(second).transpose(1, 2)
    own = cosine.diagonal(dim1=1, dim2=2)
    others = cosine.masked_fill(torch.eye(4, dtype=torch.bool), -torch.inf)
    ahead = [(others.amax(axis) - own).clamp(min=0).mean().item() for axis in (1, 2)]
    found = temperature * losses.point_info_nce(first, second, sharing(list(range(8)), size=2), temperature).item()
    assert found == pytest.approx(sum(ahead) / 2, abs=2 * temperature)


# Scene contexts ------------------------------------------------------------------------------------------------------


def drawn_region(seed: int) -> torch.Tensor:
    """Parts of space of 2 x 6 samples, the first row of the first sequence without negatives in most of them."""
    generator = torch.Generator().manual_seed(seed)
    region = torch.randint(0, losses.REGIONS + 1, (2, 6, 6), generator=generator)
    region[:, range(6), range(6)] = 0
    region[0, 0] = torch.tensor([0, 0, 0, 3, 3, 0])
    return region


def looped_scene_contexts(first, second, region, temperature) -> float:
    """One cross-entropy for every sample, part of space and direction."""
    found = []
    for features, others, parts in ((first, second, region[0]), (second, first, region[1])):
        for b in range(len(features)):
            one, two = ([normalised(row) for row in rows[b].tolist()] for rows in (features, others))
            for i, anchor in enumerate(one):
                own = math.exp(dot(anchor, two[i]) / temperature)
                for part in range(1, losses.REGIONS + 1):
                    within = [k for k in range(len(two)) if parts[b, i, k] == part]
                    rest = sum(math.exp(dot(anchor, two[k]) / temperature) for k in within)
                    found.append(-math.log(own / (own + rest)))
    return sum(found) / len(found)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_scene_contexts_equal_a_loop_over_samples_and_parts_of_space(temperature):
    first, second, region = drawn(2, 6, D), drawn(2, 6, D, seed=1), (drawn_region(2), drawn_region(3))
    ours = losses.scene_contexts(first, second, region, temperature).item()
    assert ours == pytest.approx(looped_scene_contexts(first, second, region, temperature), rel=1e-9)


def test_scene_contexts_gradient_equals_that_of_one_cross_entropy_a_part():
    first, second = drawn(2, 6, D).requires_grad_(), drawn(2, 6, D, seed=1).requires_grad_()
    region = drawn_region(2), drawn_region(3)
    ours = torch.autograd.grad(losses.scene_contexts(first, second, region, 0.2), (first, second))
    logits = losses.unit(first) @ losses.unit(second).transpose(1, 2) / 0.2
    expected, own = 0, torch.arange(6).expand(2, -1)
    for scores, parts in ((logits, region[0]), (logits.transpose(1, 2), region[1])):
        for part in range(1, losses.REGIONS + 1):
            left_out = (parts != part) & ~torch.eye(6, dtype=torch.bool)
            masked = scores.masked_fill(left_out, -torch.inf).transpose(1, 2)
            expected = expected + torch.nn.functional.cross_entropy(masked, own) / 2 / losses.REGIONS
    for mine, theirs in zip(ours, torch.autograd.grad(expected, (first, second)), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-9)


def test_with_all_negatives_in_one_part_scene_contexts_are_an_eighth_of_info_nce():
    first, second, same = drawn(2, 6, D), drawn(2, 6, D, seed=1), sharing([0, 0, 2, 3, 4, 5, *range(6)], size=2)
    region = torch.full((2, 6, 6), 5).masked_fill(same, 0)
    ours = losses.scene_contexts(first, second, (region, region), 0.1).item()
    assert ours == pytest.approx(losses.point_info_nce(first, second, same, 0.1).item() / losses.REGIONS, rel=1e-9)


def test_scene_contexts_of_any_temperature_have_finite_losses_and_gradients():
    first = drawn(2, 6, D).float().requires_grad_()
    region = drawn_region(2), drawn_region(3)
    for temperature in (1e-4, 1e4):
        loss = losses.scene_contexts(first, drawn(2, 6, D, seed=1).float(), region, temperature)
        (gradient,) = torch.autograd.grad(loss, first)
        assert loss.isfinite() and gradient.isfinite().all()


def test_parts_of_space_equal_the_signs_and_distances_of_every_pair():
    place = drawn(2, 7, 3).float()
    place[0, 1] = place[0, 0] + 0.01
    same = sharing([0, 1, 2, 3, 4, 4, 6, *range(7, 14)], size=2)
    found = losses.regions_around(place, same, 0.1, 1.5)
    for b, i, k in np.ndindex(2, 7, 7):
        away = (place[b, k] - place[b, i]).tolist()
        apart = math.sqrt(sum(x * x for x in away))
        quadrant = {(False, False): 1, (False, True): 2, (True, False): 3, (True, True): 4}[away[1] < 0, away[2] < 0]
        expected = 0 if apart < 0.1 or same[b, i, k] else quadrant + (4 if apart >= 1.5 else 0)
        assert found[b, i, k] == expected
    assert found[0, 0, 1] == found[0, 4, 5] == 0 and set(found.unique().tolist()) == set(range(9))


@pytest.mark.parametrize("loss", ["info_nce", "scene_contexts", "hardest", "vicreg"])
def test_the_order_of_samples_makes_no_difference(loss):
    first, second, order = drawn(1, 6, D), drawn(1, 6, D, seed=1), torch.tensor([3, 0, 5, 1, 4, 2])
    same, place = sharing([0, 0, 2, 3, 4, 5], size=1), drawn(1, 6, 3, seed=2)

    def value(at):
        shared = same[:, at][:, :, at]
        region = losses.regions_around(place[:, at], shared, 0.1, 1.0)
        return {
            "info_nce": lambda *z: losses.point_info_nce(*z, shared, 0.2),
            "scene_contexts": lambda *z: losses.scene_contexts(*z, (region, region), 0.2),
            "hardest": lambda *z: losses.hardest_contrastive(*z, shared, 0.1, 1.4),
            "vicreg": lambda *z: losses.vicreg(*(x[0] for x in z), (25.0, 25.0, 1.0)),
        }[loss](first[:, at], second[:, at]).item()

    assert value(order) == pytest.approx(value(torch.arange(6)), rel=1e-12) and value(order) > 0


# VICReg --------------------------------------------------------------------------------------------------------------


def numpy_vicreg(first, second, weights) -> float:
    """The published code's means, in NumPy."""
    invariance = np.mean((first - second) ** 2)
    variance = covariance = 0.0
    for x in (first, second):
        variance += np.mean(np.maximum(0, 1 - np.sqrt(np.var(x, axis=0, ddof=1) + 1e-4))) / 2
        squares = np.cov(x, rowvar=False) ** 2
        covariance += (squares.sum() - np.trace(squares)) / x.shape[1]
    return (weights[0] * invariance + weights[1] * variance + weights[2] * covariance) / sum(weights)


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_vicreg_equals_its_numpy_twin(weights):
    first, second = 0.7 * drawn(40, D), 0.7 * drawn(40, D, seed=1)
    second = first + 0.5 * second
    expected = numpy_vicreg(first.numpy(), second.numpy(), weights)
    assert losses.vicreg(first, second, weights).item() == pytest.approx(expected, rel=1e-10) and expected > 0


def test_vicreg_is_zero_for_equal_views_whose_dimensions_are_spread_and_uncorrelated():
    """Columns of a Hadamard matrix: mean 0, orthogonal, variance a little above 1."""
    rows = torch.tensor([[1.0]], dtype=torch.float64)
    for _ in range(3):
        rows = torch.cat([torch.cat([rows, rows], 1), torch.cat([rows, -rows], 1)])
    spread = rows[:, 1:6].requires_grad_()
    loss = losses.vicreg(spread, spread, (25.0, 25.0, 1.0))
    assert loss.item() == pytest.approx(0, abs=1e-30)
    assert torch.autograd.grad(loss, spread)[0].abs().max() < 1e-15
    collapsed = losses.vicreg(torch.ones(8, 5), torch.ones(8, 5), (0.0, 1.0, 0.0)).item()
    assert collapsed == pytest.approx(1 - 0.01)  # the root of what is added to a variance of 0


def test_vicreg_of_half_precision_is_summed_in_float32():
    first, second = (30 * drawn(5000, D, seed=seed).half() for seed in (0, 1))
    loss = losses.vicreg(first, second, (25.0, 25.0, 1.0))
    assert loss.dtype == torch.float32
    expected = numpy_vicreg(first.double().numpy(), second.double().numpy(), (25.0, 25.0, 1.0))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


# Prototypes ----------------------------------------------------------------------------------------------------------


def numpy_assignments(scores, temperature, rounds):
    shares = np.exp(scores / temperature)
    for _ in range(rounds):
        shares = shares / shares.sum(0)
        shares = shares / shares.sum(1)[:, None]
    return shares


@pytest.mark.parametrize("rounds", [1, 3])
def test_balanced_assignments_equal_their_numpy_twin(rounds):
    scores = losses.unit(drawn(30, D)) @ losses.unit(drawn(7, D, seed=1)).T
    found = losses.balanced_assignments(scores, 0.07, rounds)
    np.testing.assert_allclose(found.numpy(), numpy_assignments(scores.numpy(), 0.07, rounds), rtol=1e-10)


def test_rows_of_balanced_assignments_sum_to_one_and_prototypes_share_samples_evenly():
    scores = losses.unit(drawn(60, D)) @ losses.unit(drawn(6, D, seed=1)).T
    scores[:, 0] += 1.0  # one prototype that all would go to
    assert (torch.softmax(scores / 0.07, 1).sum(0) > 30).tolist() == [True] + [False] * 5
    for rounds, tolerance in ((3, 2.5), (200, 1e-3)):
        shares = losses.balanced_assignments(scores, 0.07, rounds)
        torch.testing.assert_close(shares.sum(1), torch.ones(60, dtype=torch.float64))
        assert (shares.sum(0) - 10).abs().max() < tolerance


def test_equal_scores_are_shared_out_evenly_and_the_smallest_temperature_is_finite():
    assert torch.allclose(losses.balanced_assignments(torch.ones(12, 4), 0.07), torch.tensor(0.25))
    worst = 2 * torch.eye(12).float() - 1  # of every cosine between -1 and 1
    assert losses.balanced_assignments(worst, 0.025).isfinite().all()


def test_the_prototype_loss_is_a_cross_entropy_and_least_at_the_target_itself():
    scores, target = drawn(2, 5, 7), torch.softmax(drawn(2, 5, 7, seed=1), -1)
    expected = []
    for row, goal in zip(scores.reshape(-1, 7).tolist(), target.reshape(-1, 7).tolist(), strict=True):
        total = sum(math.exp(x / 0.1) for x in row)
        expected.append(-sum(g * math.log(math.exp(x / 0.1) / total) for x, g in zip(row, goal, strict=True)))
    assert losses.prototype_loss(scores, target, 0.1).item() == pytest.approx(sum(expected) / 10, rel=1e-9)
    least = losses.prototype_loss(0.1 * target.log(), target, 0.1).item()
    assert least == pytest.approx(-(target * target.log()).sum(-1).mean().item(), rel=1e-9)


# How well a comparison is fitted -------------------------------------------------------------------------------------


def cloud_of(*shape, shift=0.5, seed=3):
    return torch.from_numpy(np.random.default_rng([seed, *shape]).normal(shift, 1, shape))


def test_the_fit_of_predictions_equals_counting_sample_by_sample():
    p = cloud_of(2, 12, 5)
    z = 0.5 * p + cloud_of(2, 12, 5, seed=4)
    row = torch.tensor([0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 9])
    found = losses.fit(p, z, row, 2)
    unit_p, unit_z = ([v / np.linalg.norm(v) for v in x.reshape(-1, 5).numpy()] for x in (p, z))
    middle_p, middle_z = np.mean(unit_p, axis=0), np.mean(unit_z, axis=0)
    cosines = [a @ b for a, b in zip(unit_p, unit_z, strict=True)]
    centred = []
    for a, b in zip(unit_p, unit_z, strict=True):
        a, b = a - middle_p, b - middle_z
        centred.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    right = 0
    for i in range(6):  # the first of two sequences
        nearest = max(range(6), key=lambda j: unit_p[i] @ unit_z[j])
        right += int(row[nearest] == row[i])
    expected = {"cos": np.mean(cosines), "constant": np.linalg.norm(middle_z)}
    expected |= {"centred": np.mean(centred), "top1": right / 6}
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, rel=1e-9)


def test_no_constant_prediction_is_better_than_the_constant_that_is_told():
    z = cloud_of(1, 40, 6)
    told = losses.fit(cloud_of(1, 40, 6, seed=4), z, torch.arange(40), 1)["constant"].item()
    best = losses.unit(z).mean((0, 1))
    reached = losses.fit(best.expand(1, 40, 6), z, torch.arange(40), 1)
    assert reached["cos"].item() == pytest.approx(told)
    for k in range(50):
        other = cloud_of(6 + k)[:6].expand(1, 40, 6)
        assert losses.fit(other, z, torch.arange(40), 1)["cos"] <= told
    assert reached["top1"] == 1 / 40


def test_a_perfect_prediction_has_every_figure_at_its_best_and_no_gradient():
    z = cloud_of(2, 30, 6).requires_grad_()
    found = losses.fit(3 * z, z, torch.arange(30), 1)
    assert [found[name].item() for name in ("cos", "centred", "top1")] == pytest.approx([1, 1, 1])
    assert not any(value.requires_grad for value in found.values())


def test_votes_of_two_processes_with_unlike_counts_make_the_loss_of_one(monkeypatch):
    generator = torch.Generator().manual_seed(3)
    vote, target = torch.randn(2, 8, 4, generator=generator), torch.randn(2, 8, 3, generator=generator)
    moving = torch.tensor([[1, 1, 1, 0, 0, 0, 1, 0], [0, 0, 0, 1, 0, 0, 0, 0]], dtype=torch.bool)
    whole = losses.vote_loss(vote, target, moving)
    monkeypatch.setattr(losses, "sum_over_processes", lambda own: moving.sum(1).to(own.dtype))
    monkeypatch.setattr(losses.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(losses.distributed, "get_world_size", lambda: 2)
    halves = [losses.vote_loss(*(x[:, part] for x in (vote, target, moving))) for part in (slice(4), slice(4, 8))]
    torch.testing.assert_close(sum(halves) / 2, whole)
