import pytest
import torch
from prunetui.engine.measure.sampling import draw_gumbel, keep_top_k, keep_top_p
from prunetui.engine.measure.sampling import sample as sample_by_noise
from prunetui.engine.trace.records import Sampling


def sampling(
    temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0
) -> Sampling:
    return Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        max_new_tokens=1,
        ignore_eos=False,
    )


def gumbel(size: int, seed: int, step: int) -> torch.Tensor:
    noise = torch.empty(size)
    draw_gumbel(noise, seed, step)
    return noise


def sample(z: torch.Tensor, sampling: Sampling, step: int) -> torch.Tensor:
    return sample_by_noise(z, sampling, gumbel(z.shape[-1], sampling.seed, step))


def test_equal_lanes_choose_alike() -> None:
    z = torch.randn(1, 1000).repeat(5, 1)
    for step in range(20):
        assert len(set(sample(z, sampling(), step).tolist())) == 1


def test_a_step_decoded_again_chooses_again_and_seed_and_step_matter() -> None:
    z = torch.zeros(1, 100_000)
    first = sample(z, sampling(seed=5), 7)
    assert torch.equal(first, sample(z, sampling(seed=5), 7))
    assert not torch.equal(first, sample(z, sampling(seed=5), 8))
    assert not torch.equal(first, sample(z, sampling(seed=6), 7))


def test_choices_follow_the_distribution() -> None:
    p = torch.tensor([0.6, 0.3, 0.1])
    z = p.log()[None] * 0.5
    counts = torch.zeros(3)
    for step in range(4000):
        counts[sample(z, sampling(temperature=0.5), step)] += 1
    # Three standard deviations of a binomial count of 4000 are under 0.024.
    assert (counts / 4000).tolist() == pytest.approx(p.tolist(), abs=0.024)


def test_top_k_keeps_k_scores() -> None:
    kept = keep_top_k(torch.tensor([[1.0, 4.0, 2.0, 3.0]]), 2)
    assert kept.tolist() == [[-torch.inf, 4.0, -torch.inf, 3.0]]


def test_top_p_keeps_tokens_until_their_mass_reaches_p() -> None:
    scores = torch.tensor([[0.1, 0.5, 0.4], [0.05, 0.05, 0.9]]).log()
    kept = keep_top_p(scores, 0.6).isfinite()
    assert kept.tolist() == [[False, True, True], [False, False, True]]


def test_filters_bind_the_choice() -> None:
    z = torch.randn(3, 50)
    for step in range(50):
        assert torch.equal(sample(z, sampling(top_k=1), step), z.argmax(dim=-1))
        assert torch.equal(sample(z, sampling(top_p=1e-6), step), z.argmax(dim=-1))


def test_noise_is_gumbel() -> None:
    noise = gumbel(200_000, 0, 0)
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(torch.pi**2 / 6, abs=0.03)
