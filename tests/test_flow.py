"""A flow recovers known densities, comes back from its file, and gives calibrated percentiles."""

import json
import math

import numpy as np
import pytest
import torch
from joblib import parallel_config
from safetensors.torch import save_file
from scipy import stats
from test_vdvae import stir

from rgz.errors import BadInput
from rgz.models import flow as flows
from rgz.models.flow import Config

MIX = np.array([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [0.3, -0.4, 2.0]])
SMALL = Config(kept=3, layers=2, hidden=32, dropout=0.0, epochs=20, batch=256)
BENT = Config(kept=2, layers=3, hidden=32, dropout=0.0, epochs=25, batch=128, learning_rate=5e-3)


def ball(count, seed):
    """Correlated Gaussian codes (count, 3)."""
    return 3 + np.random.default_rng(seed).normal(size=(count, 3)) @ MIX.T


def banana(count, seed):
    """Codes (count, 2) whose second number is the first one squared, give or take a half."""
    x, noise = np.random.default_rng(seed).normal(size=(2, count))
    return np.stack([x, x**2 + noise / 2], axis=1)


def of_banana(codes):
    """What the density of :func:`banana` is, in nats."""
    return stats.norm.logpdf(codes[:, 0]) + stats.norm.logpdf(codes[:, 1] - codes[:, 0] ** 2, scale=0.5)


def volume(fitted):
    """Nats by which whitening makes densities smaller."""
    return np.linalg.slogdet(fitted.matrix)[1]


@pytest.fixture(scope="module")
def one_process():
    with parallel_config(backend="sequential"):
        yield


@pytest.fixture(scope="module")
def gaussian(one_process):
    return flows.fit_ensemble(ball(3000, 0), np.arange(3000), SMALL, members=2)


@pytest.fixture(scope="module")
def bent(one_process):
    return flows.fit_ensemble(banana(3000, 0), np.arange(3000), BENT, members=2)


@pytest.fixture(scope="module")
def calibrated(gaussian):
    return flows.calibrate(gaussian, ball(800, 1))


@pytest.fixture
def flow():
    torch.manual_seed(0)
    return stir(flows.Flow(Config(kept=5, layers=1, hidden=16)), 0.3).eval()


def test_a_gaussian_has_the_entropy_of_a_gaussian(gaussian):
    codes = ball(20_000, 2)
    entropy = 1.5 * math.log(2 * math.pi * math.e)  # of numbers of spread one
    assert gaussian.score_samples(codes).mean() == pytest.approx(-entropy, abs=0.03)
    truth = stats.multivariate_normal(np.full(3, 3), MIX @ MIX.T).logpdf(codes) - volume(gaussian)
    assert np.corrcoef(truth, gaussian.score_samples(codes))[0, 1] > 0.99


def test_a_banana_has_its_entropy_and_no_gaussian_fits_it(bent):
    codes = banana(20_000, 2)
    truth, found = of_banana(codes).mean() - volume(bent), bent.score_samples(codes).mean()
    assert found == pytest.approx(truth, abs=0.05)
    known, asked = bent.whitened(banana(3000, 0)), bent.whitened(codes)
    simple = stats.multivariate_normal(known.mean(0), np.cov(known.T)).logpdf(asked).mean()
    assert found > simple + 0.5


def test_the_density_of_a_banana_adds_up_to_one(bent):
    x, y = np.meshgrid(np.linspace(-5, 5, 301), np.linspace(-4, 24, 401))
    likely = bent.score_samples(np.stack([x.ravel(), y.ravel()], axis=1)) + volume(bent)
    assert np.exp(likely).sum() * (10 / 300) * (28 / 400) == pytest.approx(1, abs=0.02)


@pytest.mark.slow
def test_another_library_fits_as_well(bent):
    zuko = pytest.importorskip("zuko")
    fitting, asked = (
        torch.from_numpy(bent.whitened(banana(count, seed)).astype(np.float32))
        for count, seed in ((3000, 0), (5000, 2))
    )
    torch.manual_seed(0)
    other = zuko.flows.MAF(2, 0, transforms=BENT.layers, hidden_features=(BENT.hidden,) * 2)
    optimizer = torch.optim.AdamW(other.parameters(), BENT.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, BENT.epochs)
    for _ in range(BENT.epochs):
        for rows in torch.randperm(len(fitting)).split(BENT.batch):
            loss = -other().log_prob(fitting[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    with torch.no_grad():
        ours, theirs = (said(asked).mean().item() for said in (bent.flows[0], other().log_prob))
    assert ours == pytest.approx(theirs, abs=0.05)


def test_each_number_depends_only_on_those_before_it(flow):
    torch.manual_seed(1)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow.steps(v[None])[0][0], torch.randn(5)).flip(1)
    assert jacobian.triu(1).abs().max() == 0
    assert (jacobian.tril() != 0)[np.tril_indices(5)].all()
    assert (jacobian.diagonal() > 0).all()


def test_likelihood_is_that_of_the_noise_and_of_the_volume():
    torch.manual_seed(0)
    flow = stir(flows.Flow(Config(kept=4, layers=3, hidden=16)), 0.2).eval()
    for value in torch.randn(5, 4):
        noise = flow.steps(value[None])[0][0]
        jacobian = torch.autograd.functional.jacobian(lambda v: flow.steps(v[None])[0][0], value)
        expected = stats.norm.logpdf(noise.detach().numpy()).sum() + torch.linalg.slogdet(jacobian)[1].item()
        assert flow(value[None]).item() == pytest.approx(expected, abs=1e-4)


def test_whitened_codes_are_uncorrelated_and_of_spread_one():
    codes = ball(500, 0)
    for kept in (2, 3):
        centre, matrix = flows.whitening(codes, kept)
        np.testing.assert_allclose(np.cov(((codes - centre) @ matrix).T), np.eye(kept), atol=1e-9)
    first = np.linalg.svd(codes - centre, full_matrices=False)[2][0]
    assert abs(first @ matrix[:, 0]) == pytest.approx(np.linalg.norm(matrix[:, 0]))


def test_the_density_is_the_mean_of_the_members(gaussian):
    codes = ball(50, 2)
    each = gaussian.member_scores(codes)
    assert each.shape == (2, 50)
    np.testing.assert_allclose(np.exp(gaussian.score_samples(codes)), np.exp(each).mean(0))


def test_the_same_codes_make_the_same_flows(one_process):
    config = Config(kept=3, layers=1, hidden=8, epochs=2)
    torch.manual_seed(7)
    one = flows.fit_ensemble(ball(200, 0), np.arange(200), config, members=2)
    torch.manual_seed(8)
    expected = torch.rand(3)
    torch.manual_seed(8)
    another = flows.fit_ensemble(ball(200, 0), np.arange(200), config, members=2)
    np.testing.assert_array_equal(one.member_scores(ball(9, 1)), another.member_scores(ball(9, 1)))
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_percentiles_of_held_out_galaxies_are_uniform(calibrated):
    ranks = calibrated.percentile(calibrated.score_samples(ball(800, 2)))
    assert stats.kstest(ranks / 100, "uniform").pvalue > 0.01
    stranger = calibrated.percentile(calibrated.score_samples(3 + 1.5 * (ball(800, 2) - 3)))
    assert stats.kstest(stranger / 100, "uniform").pvalue < 1e-6
    assert stranger.mean() < ranks.mean()


def test_percentiles_rise_with_likelihood_and_never_reach_an_end(calibrated):
    ranks = calibrated.percentile(np.array([-1e9, *calibrated.calibration[[0, 400, -1]], 1e9]))
    assert (np.diff(ranks) > 0).all()
    assert 0 < ranks[0] < 0.1
    assert 99.9 < ranks[-1] < 100
    assert ranks[2] == pytest.approx(50, abs=0.2)


def test_a_galaxy_without_a_host_is_compared_with_galaxies_treated_alike(gaussian, tmp_path):
    both = flows.calibrate(gaussian, ball(800, 1), 3 + 1.5 * (ball(400, 2) - 3))
    flows.save(tmp_path / "d.safetensors", both, {})
    read, _ = flows.load(tmp_path / "d.safetensors")
    value = read.calibration[[100, 100]]
    host, centroid = read.percentile(value, np.array([True, False]))
    assert host == pytest.approx(12.6, abs=0.2)
    assert centroid > 2 * host  # the codes beside which it stands are less likely
    with pytest.raises(BadInput, match="calibrate"):
        flows.calibrate(gaussian, ball(9, 1)).percentile(value, np.array([True, False]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e25, 1e300])
def test_a_code_without_a_finite_density_has_log_likelihood_minus_infinity(calibrated, value):
    codes = ball(3, 2)
    codes[1, 0] = value
    likely = calibrated.score_samples(codes)
    assert likely[1] == -np.inf
    assert np.isfinite(likely[[0, 2]]).all()
    assert calibrated.percentile(likely)[1] == 0
    assert calibrated.score_samples(codes[1:2]) == -np.inf  # alone, too


def test_percentiles_need_a_calibration_set(gaussian):
    with pytest.raises(BadInput, match="calibrate"):
        gaussian.percentile(np.zeros(2))


@pytest.mark.parametrize("shape", [(5, 2), (5, 4), (3,)])
def test_codes_of_another_length_are_refused(gaussian, shape):
    with pytest.raises(BadInput, match=r"\(N, 3\)"):
        gaussian.score_samples(np.zeros(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_codes_to_fit_to_must_be_finite(value):
    codes = ball(50, 0)
    codes[7, 1] = value
    with pytest.raises(BadInput, match="finite"):
        flows.fit_ensemble(codes, np.arange(50), SMALL)


def test_too_few_codes_to_fit_to_are_refused():
    with pytest.raises(BadInput, match="groups"):
        flows.fit_ensemble(ball(50, 0), np.repeat([0, 1], 25), SMALL)
    with pytest.raises(BadInput, match="components"):
        flows.fit_ensemble(ball(50, 0), np.arange(50), Config(kept=4))


def test_numbers_that_never_vary_cannot_be_whitened():
    with pytest.raises(BadInput):
        flows.whitening(np.column_stack([ball(50, 0), np.ones(50)]), 4)


@pytest.fixture
def stored(tmp_path, calibrated):
    flows.save(tmp_path / "d.safetensors", calibrated, {"sources": 3000})
    return tmp_path / "d.safetensors"


def test_a_density_is_kept_in_half_precision(stored, calibrated):
    read, about = flows.load(stored)
    assert about == {"sources": 3000}
    assert read.config == calibrated.config
    codes = ball(300, 2)
    np.testing.assert_allclose(read.member_scores(codes), calibrated.member_scores(codes), atol=0.02)
    np.testing.assert_allclose(read.calibration, calibrated.calibration, rtol=1e-6)
    ranks = (one.percentile(one.score_samples(codes)) for one in (read, calibrated))
    np.testing.assert_allclose(*ranks, atol=1)
    flows.save(stored, read, about)
    again, _ = flows.load(stored)
    np.testing.assert_array_equal(again.member_scores(codes), read.member_scores(codes))  # nothing more is lost


def test_weights_that_are_masked_take_no_room(stored, calibrated):
    numbers = sum(p.numel() for flow in calibrated.flows for p in flow.parameters())
    assert stored.stat().st_size < 2 * numbers + 4 * len(calibrated.calibration)


def spoilt(path, how):
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    broken = bytearray(whole)
    if how == "cut short":
        broken = broken[:-100]
    elif how == "header cut":
        broken = broken[: start // 2]
    elif how == "empty":
        broken = b""
    elif how == "text":
        broken = b"a density, honestly"
    elif how == "a flipped bit":
        broken[-501] ^= 0x40
    elif how == "another width":
        broken = whole.replace(b'\\"hidden\\": 32', b'\\"hidden\\": 16')
        assert broken != whole
    path.write_bytes(broken)


@pytest.mark.parametrize("how", ["cut short", "header cut", "empty", "text", "another width", "a flipped bit"])
def test_a_damaged_file_is_no_density(stored, how):
    spoilt(stored, how)
    with pytest.raises(BadInput, match=r"d\.safetensors"):
        flows.load(stored)


@pytest.mark.parametrize(
    "about", [None, {"rgz": "{}"}, {"density": "{}"}, {"density": "[]"}, {"density": "{"},
              {"density": json.dumps({"config": {"kept": -1}, "provenance": {}})}]
)  # fmt: skip
def test_a_file_of_something_else_is_no_density(tmp_path, about):
    save_file({"centre": torch.zeros(3)}, tmp_path / "other.safetensors", about)
    with pytest.raises(BadInput, match="rgz study density makes it"):
        flows.load(tmp_path / "other.safetensors")


def test_no_file_is_no_density(tmp_path):
    for path in (tmp_path, tmp_path / "absent.safetensors"):
        with pytest.raises(BadInput, match="not a density"):
            flows.load(path)


def test_codes_of_any_scale_can_be_kept(tmp_path, one_process):
    config, codes = Config(kept=3, layers=1, hidden=8, epochs=1), 1e-6 * ball(200, 0)
    fitted = flows.fit_ensemble(codes, np.arange(200), config, members=2)
    flows.save(tmp_path / "d.safetensors", fitted, {})
    read, _ = flows.load(tmp_path / "d.safetensors")
    np.testing.assert_allclose(read.member_scores(codes), fitted.member_scores(codes), atol=0.05)
