import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.train.muon import Muon, orthogonalised

shapes = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(shapes, st.integers(0, 99))
def test_singular_values_are_brought_near_1_and_directions_kept(shape, seed):
    matrices = random(*shape, seed=seed)
    got = orthogonalised(matrices, torch.float32)
    u, s, v = torch.linalg.svd(matrices, full_matrices=False)
    strong = s > 0.05 * s.norm(dim=-1, keepdim=True)  # weaker ones need more steps
    values = torch.diagonal(u.mT @ got @ v.mT, dim1=1, dim2=2)
    assert ((values > 0.5) & (values < 1.3))[strong].all()
    off = u.mT @ got @ v.mT - torch.diag_embed(values)
    assert off.abs().max() < 1e-3


def test_a_step_is_that_of_torch():
    # Theirs multiplies in bfloat16, so the updates agree to its precision alone.
    sizes = [(8, 16), (16, 8), (8, 16), (12, 12)]
    ours = [torch.nn.Parameter(random(*size, seed=i)) for i, size in enumerate(sizes)]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    options = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.95}
    pair = Muon(ours, **options, dtype=torch.bfloat16), torch.optim.Muon(theirs, **options)
    for step in range(5):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            a.grad = random(*a.shape, seed=100 * step + i)
            b.grad = a.grad.clone()
        for optimizer in pair:
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=3e-3, rtol=0)


def test_a_weight_without_gradient_stays():
    weights = [torch.nn.Parameter(random(3, 3)), torch.nn.Parameter(random(3, 3))]
    before = weights[1].detach().clone()
    weights[0].grad = random(3, 3, seed=1)
    Muon(weights, lr=0.1, weight_decay=0.5).step()
    assert torch.equal(weights[1], before)


def test_what_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match=r"got shapes \[\(3,\)\]"):
        Muon([torch.nn.Parameter(torch.ones(3))], lr=0.1)
    with pytest.raises(ValueError, match="no closure"):
        Muon([torch.nn.Parameter(torch.ones(3, 3))], lr=0.1).step(lambda: None)
