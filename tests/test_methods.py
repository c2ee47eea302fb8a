"""The named methods on a small synthetic batch: what they sum, whom they train, that they learn and when they
collapse."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from tests.make_batch import make_batch
from train.config import ConfigError
from train.methods import losses
from train.methods.config import PretrainConfig
from train.methods.contrast4d.batch import places_of
from train.methods.contrast4d.config import METHODS, PREDICTORS, Contrast4D
from train.methods.contrast4d.model import Contrast
from train.nets.unet import NetShape
from train.run.norms import share_norms

NETS = {"34": NetShape((1, 1), (32, 32), 16), "14a": NetShape((1, 1), (16, 16), 16)}
PARTS = {"3d-3d": "weight_3d", "3d-4d": "weight_3d4d", "4d-4d": "weight_4d"}


def batch_for(method: str, **sizes):
    facts = METHODS[method]
    return make_batch(np.random.default_rng([0]), has_4d=facts.has_4d, moving=facts.moving, **sizes)


def model_of(method: str, **fields) -> Contrast:
    config = Contrast4D(width=32, hidden=32, **fields)
    return Contrast(method, config, torch.Generator().manual_seed(0), NETS)


@pytest.mark.parametrize("method", METHODS)
def test_total_is_the_weighted_sum_of_the_method_s_terms(method):
    loss = model_of(method, weight_3d=2.0, weight_3d4d=0.5, weight_4d=3.0, weight_votes=0.3)(batch_for(method))
    weight = {"3d-3d": 2.0, "3d-4d": 0.5, "4d-4d": 3.0, "votes": 0.3}
    assert tuple(loss.terms) == METHODS[method].terms
    expected = sum(weight[name] * term.item() for name, term in loss.terms.items())
    assert loss.total.item() == pytest.approx(expected, rel=1e-6)
    assert not any(x.requires_grad for x in (*loss.terms.values(), *loss.spread.values()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("predictors", PREDICTORS)
def test_a_method_has_the_parts_it_uses_and_no_others(method, predictors):
    parts = {name for name, _ in model_of(method, predictors=predictors).named_children()}
    with_4d, cosine = METHODS[method].has_4d, METHODS[method].cosine
    expected = {"encoder3d": True, "predictor3d": cosine, "encoder4d": with_4d, "predictor4d": with_4d and cosine}
    expected |= dict.fromkeys(("cross3d", "cross4d"), with_4d and cosine and predictors == "own")
    expected["voter"] = METHODS[method].votes
    assert parts == {name for name, used in expected.items() if used}


def test_predictors_of_their_own_leave_what_else_is_drawn_as_it_is():
    shared, own = (model_of("4dcontrast", predictors=kind).state_dict() for kind in ("shared", "own"))
    assert {name.split(".")[0] for name in own.keys() - shared.keys()} == {"cross3d", "cross4d"}
    assert all(torch.equal(own[name], value) for name, value in shared.items())
    loss = {kind: model_of("4dcontrast", predictors=kind)(batch_for("4dcontrast")).terms for kind in ("shared", "own")}
    assert loss["own"]["3d-4d"] != loss["shared"]["3d-4d"]


@pytest.mark.parametrize("method", METHODS)
def test_every_comparison_of_a_method_is_measured(method):
    names = {"3d-3d", "3d-4d", "4d-3d", "4d-4d"} if METHODS[method].cosine else {"3d-3d", "3d-4d"}
    names = names if METHODS[method].has_4d else set(METHODS[method].terms)
    fit = model_of(method)(batch_for(method)).fit
    assert set(fit) == {f"{name}/{kind}" for name in names for kind in ("cos", "constant", "centred", "top1")}
    assert all(-1 <= value <= 1 for value in fit.values())


@pytest.mark.parametrize("method", METHODS)
def test_forwards_that_are_made_again_give_the_same_losses_gradients_and_statistics(method):
    """And keep less: only what lies outside the nets is kept from the forward to the backward pass."""
    found, kept = [], []
    for again in (False, True):
        model, seen = model_of(method, recompute=again), {}

        def keep(tensor, seen=seen):
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        for _ in range(2):
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss = model(batch_for(method))
            loss.total.backward()
        found.append([loss.total, *(p.grad for p in model.parameters()), *model.buffers()])
        kept.append(sum(seen.values()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True) if one.ndim < 2)
    assert kept[1] < 0.6 * kept[0]


def test_centred_projections_have_no_mean_direction_and_uncentred_ones_do():
    fits = {centred: model_of("4dcontrast", centred=centred)(batch_for("4dcontrast")).fit for centred in (False, True)}
    for name in ("3d-3d", "3d-4d", "4d-3d", "4d-4d"):
        assert fits[True][f"{name}/constant"] < 0.3 < 0.6 < fits[False][f"{name}/constant"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("predictors", PREDICTORS)
def test_every_parameter_of_a_method_is_trained(method, predictors):
    model = model_of(method, predictors=predictors)
    model(batch_for(method)).total.backward()
    idle = [name for name, weight in model.named_parameters() if weight.grad is None or weight.grad.abs().max() == 0]
    assert not [name for name in idle if not name.endswith("bias")], idle
    assert all(weight.grad is not None for weight in model.parameters())


ROUTES = [  # DESIGN 7: which parameters each term trains under each reading of the stop-gradient
    ("3d-3d", "conventional", {"predictor3d", "encoder3d"}),
    ("3d-3d", "printed", {"predictor3d", "encoder3d"}),
    ("4d-4d", "conventional", {"predictor4d", "encoder4d"}),
    ("4d-4d", "printed", {"predictor4d", "encoder4d"}),
    ("3d-4d", "conventional", {"predictor3d", "encoder3d", "predictor4d", "encoder4d"}),
    ("3d-4d", "printed", {"encoder3d", "encoder4d"}),
]


@pytest.mark.parametrize("predictors", PREDICTORS)
@pytest.mark.parametrize("term, stop, expected", ROUTES)
def test_each_term_trains_the_parts_that_its_route_names(term, stop, expected, predictors):
    weights = {field: float(name == term) for name, field in PARTS.items()}
    model = model_of("4dcontrast", stop_gradient=stop, predictors=predictors, **weights)
    if predictors == "own" and term == "3d-4d":
        expected = {part.replace("predictor", "cross") for part in expected}
    model(batch_for("4dcontrast")).total.backward()
    trained = set()
    for name, weight in model.named_parameters():
        if weight.grad is not None and weight.grad.abs().max() > 0:
            trained.add(name.split(".")[0])
    assert trained == expected


@pytest.mark.parametrize("stop, through", [("conventional", "p"), ("printed", "z")])
@pytest.mark.parametrize("dims", ["3d", "4d"])
@pytest.mark.parametrize("predictors, part", [("shared", "predictor"), ("own", "cross")])
def test_eq_5_reaches_an_encoder_only_through_the_p_or_only_through_the_z_of_its_reading(
    stop, through, dims, predictors, part
):
    """A predictor that passes no gradient on cuts the route through p and leaves that through z."""
    model = model_of("4dcontrast", stop_gradient=stop, weight_3d=0.0, weight_4d=0.0, predictors=predictors)
    predictor = getattr(model, f"{part}{dims}")
    predictor.register_forward_pre_hook(lambda _module, inputs: (inputs[0].detach(),))
    model(batch_for("4dcontrast")).total.backward()
    gradient = getattr(model, f"encoder{dims}").projector.weight.grad
    assert (gradient is not None and gradient.abs().max().item() > 0) == (through == "z")


@pytest.mark.parametrize("predictors, part", [("shared", "predictor"), ("own", "cross")])
def test_terms_of_4dcontrast_equal_eqs_3_to_8_over_separately_encoded_points(predictors, part):
    """Features by encoding point sets one by one, in evaluation mode, so that norms do not depend on the grouping."""
    batch, model = batch_for("4dcontrast"), model_of("4dcontrast", predictors=predictors).double().eval()
    pairs, t = list(itertools.combinations(range(3), 2)), 3

    def both(encoder, predictor, voxels, row):
        z = encoder(voxels, row, batch.size)
        return predictor(z.flatten(0, -2)).reshape(z.shape), z

    def at_3d(i, row, part="predictor"):
        return both(model.encoder3d, getattr(model, f"{part}3d"), batch.frame[i], row)

    def at_4d(row, part="predictor"):
        return both(model.encoder4d, getattr(model, f"{part}4d"), batch.sequence, row)

    expected = dict.fromkeys(PARTS, 0.0)
    for p, (i, j) in enumerate(pairs):
        for name, (one, two) in {
            "3d-3d": (at_3d(i, batch.pair_row[p, 0]), at_3d(j, batch.pair_row[p, 1])),
            "4d-4d": (at_4d(batch.pair_row_4d[p, 0]), at_4d(batch.pair_row_4d[p, 1])),
        }.items():
            cosine = losses.negative_cosine(one[0], two[1]) + losses.negative_cosine(two[0], one[1])
            expected[name] += cosine.mean().item() / 2 / len(pairs)
    for i in range(t):
        (p3, z3), (p4, z4) = at_3d(i, batch.point_row[i], part), at_4d(batch.point_row_4d[i, :, i], part)
        cosine = losses.negative_cosine(p3, z4) + losses.negative_cosine(p4, z3)
        expected["3d-4d"] += cosine.mean().item() / 2 / len(pairs)
    loss = model(batch)
    assert {name: term.item() for name, term in loss.terms.items()} == pytest.approx(expected, rel=1e-9)
    z3 = [at_3d(i, batch.pair_row[p, side])[1] for p, pair in enumerate(pairs) for side, i in enumerate(pair)]
    spread = {"3d": losses.spread(torch.stack(z3)).item(), "4d": losses.spread(at_4d(batch.pair_row_4d)[1]).item()}
    assert {name: value.item() for name, value in loss.spread.items()} == pytest.approx(spread, rel=1e-9)


def test_terms_of_simclr_equal_the_loss_over_pairs_and_over_frames_against_averaged_4d_features():
    batch, model = batch_for("4dcontrast-simclr"), model_of("4dcontrast-simclr").double().eval()
    split = (batch.size, -1, 32)
    frames = sequence = 0.0
    for p, (i, j) in enumerate(itertools.combinations(range(3), 2)):
        row = batch.pair_row[p]
        one = model.encoder3d(batch.frame[i], row[0], batch.size).reshape(split)
        two = model.encoder3d(batch.frame[j], row[1], batch.size).reshape(split)
        same = losses.same_voxel(row, batch.size)
        frames += losses.hardest_contrastive(one, two, same, 0.1, 1.4).item() / 3
    every = model.encoder4d(batch.sequence, torch.arange(len(batch.sequence.coordinate)), batch.size)
    for i in range(3):
        row, own = batch.point_row[i], batch.point_row_4d[i, :, i]
        z = model.encoder3d(batch.frame[i], row, batch.size).reshape(split)
        average = [every[[r for r in rows if r >= 0]].mean(0) for rows in batch.point_row_4d[i].tolist()]
        same = losses.same_voxel(torch.stack([row, own]), batch.size)
        sequence += losses.hardest_contrastive(z, torch.stack(average).reshape(split), same, 0.1, 1.4).item() / 3
    terms = {name: term.item() for name, term in model(batch).terms.items()}
    assert terms == pytest.approx({"3d-3d": frames, "3d-4d": sequence}, rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_one_forward_per_frame_index_one_of_the_sequence_and_heads_once(method):
    model, calls = model_of(method), []
    for name, part in model.named_modules():
        if name in ("encoder3d.backbone", "encoder4d.backbone", "encoder3d.projector", "encoder4d.projector"):
            part.register_forward_hook(lambda *_, name=name: calls.append(name))
        if name in ("predictor3d", "predictor4d", "cross3d", "cross4d"):
            part.register_forward_hook(lambda *_, name=name: calls.append(name))
    model(batch_for(method))
    counts = {name: calls.count(name) for name in calls}
    assert set(counts.values()) <= {1, 3}
    assert all(count == (3 if "3d" in name.split(".")[0] else 1) for name, count in counts.items())


def test_contexts_are_those_of_the_places_in_the_frame_of_the_anchor():
    """The loss over pairs by hand, and another one where the places of one side are not where they are."""
    batch, model = batch_for("moving-3d-csc"), model_of("moving-3d-csc", far_m=1.0).double().eval()
    expected = 0.0
    for p, (i, j) in enumerate(itertools.combinations(range(3), 2)):
        row = batch.pair_row[p]
        z = [model.encoder3d(batch.frame[k], row[side], 2).reshape(2, -1, 32) for side, k in enumerate((i, j))]
        same, at = losses.same_voxel(row, 2), batch.pair_place[p].reshape(2, 2, -1, 3)
        region = tuple(losses.regions_around(one, same, 0.05, 1.0) for one in at)
        assert (region[0] != region[1]).any()  # what moved lies elsewhere around what did not
        expected += losses.scene_contexts(*z, region, 0.07).item() / 3
    assert model(batch).total.item() == pytest.approx(expected, rel=1e-9)
    elsewhere = batch._replace(pair_place=batch.pair_place * torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1))
    assert model(elsewhere).total.item() != pytest.approx(expected, rel=1e-6)


def test_votes_are_measured_against_the_ways_to_the_middle_and_leave_the_rest_as_it_is():
    """By hand, sample by sample; without moving points only the question whether a point moves is left."""
    batch, model = batch_for("moving-3d-votes"), model_of("moving-3d-votes").double().eval()
    expected = 0.0
    for i in range(3):
        features = model.encoder3d.features(batch.frame[i], batch.size)[batch.point_row[i]]
        vote = features / features.norm(dim=1, keepdim=True) @ model.voter.weight.T + model.voter.bias
        found, off = [], []
        for (logit, *way), target, moves in zip(vote.tolist(), batch.vote[i].tolist(), batch.moving[i], strict=True):
            found.append(np.log1p(np.exp(-logit if moves else logit)))
            if moves:
                away = np.abs(np.subtract(way, target))
                off.append(np.where(away < 0.25, 2 * away**2, away - 0.125).sum())
        assert len(off) == 24
        expected += (np.mean(found) + np.mean(off)) / 3
    loss, without = model(batch), model_of("moving-3d-infonce").double().eval()(batch)
    assert loss.terms["votes"].item() == pytest.approx(expected, rel=1e-6)
    assert loss.terms["3d-3d"] == without.terms["3d-3d"]
    still = model(batch._replace(moving=torch.zeros_like(batch.moving)))
    assert 0 < still.terms["votes"] < expected
    assert set(still.fit) == set(loss.fit) and not any(still.fit[name] for name in still.fit if "votes" in name)


def test_frames_with_the_same_mask_are_not_compared():
    """Of three the first and the last; the term is the mean over the other pairs, at a temperature of its own."""
    batch, model = batch_for("moving-3d-msc"), model_of("moving-3d-msc", temperature=0.01).double().eval()
    expected = 0.0
    for p, (i, j) in ((0, (0, 1)), (2, (1, 2))):
        row = batch.pair_row[p]
        z = [model.encoder3d(batch.frame[k], row[side], 2).reshape(2, -1, 32) for side, k in enumerate((i, j))]
        expected += losses.point_info_nce(*z, losses.same_voxel(row, 2), 0.4).item() / 2
    assert model(batch).total.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("method", "places", "share"),
    [("moving-3d-infonce", False, 0), ("moving-3d-csc", True, 0), ("static-3d-msc", False, 0.4)]
    + [("moving-3d-votes", False, 0)],
)
def test_batches_have_what_the_loss_of_a_method_needs_and_no_more(method, places, share):
    recipe = Contrast4D(voxel_m=0.05).recipe(METHODS[method])
    assert (recipe.places, recipe.mask_share, recipe.mask_patch_m) == (places, share, 0.25)
    assert recipe.voxel_4d_m is None and not recipe.whole and recipe.moving_actors == METHODS[method].moving
    assert recipe.votes == (method == "moving-3d-votes")


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("mask_share", 0.5, "below 0.5"),
        ("mask_share", 0.0, "above 0"),
        ("mask_patch", 0, "at least 1"),
        ("mask_temperature", 0.0, "above 0"),
        ("far_m", 0.01, "not below near_m"),
        ("vicreg_weights", (1.0, 1.0), "three"),
        ("vicreg_weights", (), "three"),
        ("samples", 1, "at least 2"),
        ("vicreg_weights", (0.0, 0.0, 0.0), "one above"),
        ("vicreg_weights", (25.0, -1.0, 1.0), "none below 0"),
    ],
)
def test_settings_of_losses_that_cannot_be_are_refused_with_their_rule(field, value, rule):
    with pytest.raises(ConfigError, match=rule):
        Contrast4D(**{field: value})


def test_frame_places_name_each_frame_s_part_in_every_pair():
    assert [places_of(i, 3) for i in range(3)] == [[(0, 0), (1, 0)], [(0, 1), (2, 0)], [(1, 1), (2, 1)]]


def test_a_mean_that_vicreg_leaves_free_is_no_collapse_and_equal_features_are_one():
    batch, model = batch_for("moving-3d-vicreg"), model_of("moving-3d-vicreg")
    even = model(batch).spread["3d"].item()
    with torch.no_grad():
        model.encoder3d.projector.bias += 100
        assert model(batch).spread["3d"].item() == pytest.approx(even, abs=1e-3) and even > 0.6
        model.encoder3d.projector.weight[1:] = 0  # all features along one axis
        assert model(batch).spread["3d"] < 0.3


@pytest.mark.parametrize("kind, fields", [(PretrainConfig, {"method": "x"}), (Contrast4D, {"stop_gradient": "both"})])
def test_unknown_names_are_refused_with_what_there_is(kind, fields):
    with pytest.raises(ConfigError, match="one of"):
        kind(**fields)


@pytest.mark.parametrize("method", METHODS)
def test_equal_seeds_give_equal_losses_and_gradients(method):
    results = []
    for _ in range(2):
        model = model_of(method)
        loss = model(batch_for(method))
        loss.total.backward()
        results.append([loss.total, *(weight.grad for weight in model.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


# Learning -----------------------------------------------------------------------------------------------------------


def trained_on_one_sequence(method: str, steps: int, rate: float = 0.02, **fields):
    """The loss of the last step on one sequence of three frames, so that every cosine term can reach -1."""
    batch, model = batch_for(method, size=1, samples=4, points=200), model_of(method, **fields)
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        loss = model(batch)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        schedule.step()
    return loss


@pytest.mark.parametrize("method, steps", [("static-3d", 110), ("moving-3d", 80), ("4dcontrast", 120)])
def test_cosine_methods_fit_one_sequence_with_their_features_spread(method, steps):
    loss = trained_on_one_sequence(method, steps)
    assert max(loss.terms.values()) < -0.9
    assert min(loss.spread.values()) > 0.5


def test_hardest_contrastive_fits_one_sequence():
    loss = trained_on_one_sequence("4dcontrast-simclr", 40)
    assert max(loss.terms.values()) < 0.06
    assert min(loss.spread.values()) > 0.5


def test_info_nce_fits_one_sequence():
    loss = trained_on_one_sequence("moving-3d-infonce", 40)
    assert loss.terms["3d-3d"] < 0.3 and loss.fit["3d-3d/top1"] > 0.9


@pytest.mark.parametrize(
    ("method", "steps", "least", "top1"),
    [("moving-3d-csc", 25, 0.05, 0.9), ("moving-3d-vicreg", 40, 0.4, 0.9), ("static-3d-msc", 25, 0.3, 0.9)],
)
def test_other_losses_fit_one_sequence_with_their_features_spread(method, steps, least, top1):
    loss = trained_on_one_sequence(method, steps)
    assert loss.terms["3d-3d"] < least and loss.fit["3d-3d/top1"] >= top1 and loss.spread["3d"] > 0.6


def test_votes_find_what_moves_and_its_middle_in_one_sequence():
    loss = trained_on_one_sequence("moving-3d-votes", 60)
    assert loss.terms["votes"] < 0.2 and loss.fit["votes/cos"] > 0.9 and loss.fit["3d-3d/top1"] > 0.9


def test_with_predictors_of_its_own_the_3d_4d_term_is_fitted_and_with_shared_ones_less():
    own, shared = (trained_on_one_sequence("4dcontrast", 60, predictors=kind) for kind in ("own", "shared"))
    for name in ("3d-4d", "4d-3d"):
        assert own.fit[f"{name}/cos"] > own.fit[f"{name}/constant"] + 0.1
        assert own.fit[f"{name}/centred"] > shared.fit[f"{name}/centred"]


def test_features_collapse_without_stop_gradient():
    loss = trained_on_one_sequence("moving-3d", 30, 0.01, stop_gradient="none")
    kept = trained_on_one_sequence("moving-3d", 30, 0.01)
    assert loss.terms["3d-3d"] < -0.95 and loss.spread["3d"] < 0.35
    assert kept.spread["3d"] > 0.6


def test_norms_without_scale_are_shared_too():
    """Of `contrast.centred`: one process, so that both see the same rows."""
    plain, x = nn.BatchNorm1d(3, affine=False), torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    shared = share_norms(nn.Sequential(copy.deepcopy(plain)), torch.device("cpu"))
    torch.testing.assert_close(shared(x), plain(x))
    torch.testing.assert_close(shared[0].running_var, plain.running_var)


# On a GPU -----------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("half, tolerance", [(False, 1e-3), (True, 5e-2)], ids=["fp32", "fp16"])
@pytest.mark.parametrize("method", METHODS)
def test_cuda_gives_the_loss_of_the_cpu(method, half, tolerance):
    batch, totals = batch_for(method), []
    for device in ("cpu", "cuda"):
        model = model_of(method).to(device)
        with torch.autocast("cuda", dtype=torch.float16, enabled=half and device == "cuda"):
            loss = model(moved(batch, device))
        loss.total.backward()
        assert all(weight.grad.isfinite().all() for weight in model.parameters())
        totals.append(loss.total.item())
    assert totals[1] == pytest.approx(totals[0], abs=tolerance)


def moved(x, device: str):
    """A batch, or anything in it, on a device."""
    if isinstance(x, torch.Tensor):
        return x.to(device)
    if hasattr(x, "_fields"):
        return type(x)(*(moved(part, device) for part in x))
    return tuple(moved(part, device) for part in x) if isinstance(x, tuple) else x
