"""Memory against loops, limits and fixed points."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anomem.errors import ParameterError
from anomem.nn import hopfield
from anomem.nn.hopfield import HopfieldMemory, effective_items
from anomem.nn.tracing import exporting_here


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _memory(items: Tensor, **arguments: Any) -> HopfieldMemory:
    memory = HopfieldMemory(*items.shape, **{"beta": 1.5, **arguments}).to(items.dtype)
    memory.load_state_dict({"items": items})
    return memory


def _slow_step(query: list[float], items: list[list[float]], beta: float, dot: bool) -> list[float]:
    """Eq. 1 for one query, item by item."""
    logits = []
    for item in items:
        product = sum(q * x for q, x in zip(query, item, strict=True))
        logits.append(beta * (product - (0 if dot else sum(x * x for x in item) / 2)))
    weights = [math.exp(logit) for logit in logits]
    return [sum(w * item[c] for w, item in zip(weights, items, strict=True)) / sum(weights) for c in range(len(query))]


@pytest.mark.parametrize("association", ["euclidean", "dot"])
@pytest.mark.parametrize("steps", [1, 3])
def test_retrieval_equals_the_loop(association: str, steps: int) -> None:
    items, queries = _random(6, 4), _random(2, 5, 4, seed=1)
    memory = _memory(items, steps=steps, association=association)
    expected = []
    for query in queries.reshape(-1, 4).tolist():
        state = query
        for _ in range(steps):
            state = _slow_step(state, items.tolist(), 1.5, dot=association == "dot")
        expected.append(state)
    reference = torch.tensor(expected, dtype=torch.float64).reshape(2, 5, 4)
    torch.testing.assert_close(memory(queries), reference, rtol=1e-12, atol=1e-12)
    weights = memory.associations(queries)
    assert weights.shape == (2, 5, 6)
    torch.testing.assert_close(weights @ items, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("association", ["euclidean", "dot"])
@pytest.mark.parametrize("beta", [0.3, 2.0, 20.0])
def test_retrieval_until_convergence_is_a_fixed_point(association: str, beta: float) -> None:
    items, queries = _random(8, 5), _random(40, 5, seed=1)
    settled = _memory(items, beta=beta, steps=None, association=association)
    once = _memory(items, beta=beta, steps=1, association=association)
    retrieved = settled(queries)
    torch.testing.assert_close(once(retrieved), retrieved, rtol=0, atol=2e-3)
    assert (once(queries) - retrieved).abs().max() > 0.01


def test_a_query_converges_alike_alone_and_in_any_batch() -> None:
    items, queries = _random(8, 5), _random(30, 5, seed=1)
    memory = _memory(items, beta=1.0, steps=None)
    alone = torch.cat([memory(query[None]) for query in queries])
    torch.testing.assert_close(memory(queries), alone, rtol=1e-10, atol=1e-12)


def _lengths_differ(seed: int = 0) -> tuple[Tensor, Tensor]:
    scales = torch.linspace(0.5, 3, 50, dtype=torch.float64)[:, None]
    return _random(50, 6, seed=seed) * scales, 2 * _random(200, 6, seed=seed + 1)


def test_only_the_euclidean_hard_limit_is_the_nearest_item() -> None:
    items, queries = _lengths_differ()
    nearest = items[torch.cdist(queries, items).argmin(dim=1)]
    assert torch.equal(_memory(items, hard=True)(queries), nearest)
    assert torch.equal(_memory(items, beta=math.inf, steps=None)(queries), nearest)
    torch.testing.assert_close(_memory(items, beta=1e5)(queries), nearest)
    found = (_memory(items, hard=True, association="dot")(queries) == nearest).all(dim=1)
    assert found.double().mean() < 0.5


def test_hard_dot_retrieval_is_the_limit_of_the_soft_one_over_several_steps() -> None:
    items, queries = _lengths_differ()
    for steps in (1, 3, None):
        hard = _memory(items, hard=True, association="dot", steps=steps)
        soft = _memory(items, beta=1e5, association="dot", steps=steps)
        torch.testing.assert_close(hard(queries), soft(queries))
        torch.testing.assert_close(hard.associations(queries) @ items, hard(queries))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), beta=st.floats(0.1, 50), steps=st.sampled_from([1, 2, None]))
def test_both_associations_agree_on_unit_items(seed: int, beta: float, steps: int | None) -> None:
    items, queries = F.normalize(_random(9, 5, seed=seed), dim=1), _random(20, 5, seed=seed + 1)
    euclidean = _memory(items, beta=beta, steps=steps)
    dot = _memory(items, beta=beta, steps=steps, association="dot")
    torch.testing.assert_close(euclidean(queries), dot(queries), rtol=0, atol=1e-8)


@pytest.mark.parametrize("arguments", [{"beta": 2.0}, {"hard": True}, {"steps": None}])
def test_chunks_change_nothing(arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    items, queries = _random(8, 5, dtype=torch.float32), _random(3, 37, 5, dtype=torch.float32)
    memory = _memory(items, **arguments)
    whole = memory(queries).detach()
    usage = memory.usage(queries)
    per_query = memory.effective_items_per_query(queries)
    monkeypatch.setattr(hopfield, "_CHUNK_ELEMENTS", 80)
    with torch.no_grad():
        torch.testing.assert_close(memory(queries), whole)
    torch.testing.assert_close(memory.usage(queries), usage)
    torch.testing.assert_close(memory.effective_items_per_query(queries), per_query)


def test_usage_and_effective_items() -> None:
    items, queries = _random(8, 5), _random(100, 5, seed=1)
    memory = _memory(items, beta=0.7)
    weights = memory.associations(queries).detach()
    usage = memory.usage(queries)
    torch.testing.assert_close(usage, weights.mean(dim=0))
    entropy = -sum(float(u) * math.log(float(u)) for u in usage)
    assert effective_items(usage) == pytest.approx(math.exp(entropy))
    single = [math.exp(-sum(float(w) * math.log(float(w)) for w in row)) for row in weights]
    torch.testing.assert_close(memory.effective_items_per_query(queries), torch.tensor(single, dtype=torch.float64))


def test_effective_items_at_both_ends() -> None:
    assert effective_items(torch.full((64,), 1 / 64)) == pytest.approx(64)
    assert effective_items(F.one_hot(torch.tensor(3), 64).float()) == pytest.approx(1)
    items, queries = _random(8, 5), _random(50, 5, seed=1)
    hard = _memory(items, hard=True)
    assert hard.effective_items_per_query(queries).tolist() == pytest.approx([1.0] * 50)
    counts = torch.cdist(queries, items).argmin(dim=1).bincount(minlength=8)
    torch.testing.assert_close(hard.usage(queries), counts / 50.0, check_dtype=False)
    vague = _memory(items, beta=1e-9)
    assert vague.effective_items_per_query(queries).tolist() == pytest.approx([8.0] * 50)


@pytest.mark.parametrize("association", ["euclidean", "dot"])
@pytest.mark.parametrize("steps", [1, 2, None])
def test_gradients_are_those_of_finite_differences(association: str, steps: int | None) -> None:
    memory = _memory(_random(4, 3), beta=0.8, steps=steps, association=association)
    queries = _random(5, 3, seed=1).requires_grad_()

    def retrieve(items: Tensor, queries: Tensor) -> Any:
        return torch.func.functional_call(memory, {"items": items}, (queries,))

    assert torch.autograd.gradcheck(retrieve, (memory.items.detach().requires_grad_(), queries))


def test_hard_retrieval_moves_the_recalled_items_alone() -> None:
    items, queries = _random(8, 5), _random(3, 5, seed=1).requires_grad_()
    memory = _memory(items, hard=True)
    (gradient,) = torch.autograd.grad(memory(queries).sum(), memory.items)
    recalled = memory.usage(queries) > 0
    assert torch.equal(gradient.abs().sum(dim=1) > 0, recalled)


def test_autocast_does_not_lower_the_precision() -> None:
    items, queries = _random(8, 5, dtype=torch.float32), _random(9, 5, dtype=torch.float32)
    memory = _memory(items, beta=30.0)
    expected = memory(queries)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(memory(queries), expected, rtol=0, atol=0)


def test_first_items_follow_the_generator_and_leave_the_global_state_alone() -> None:
    state = torch.random.get_rng_state()
    first, again = HopfieldMemory(400, 9, beta=1.0), HopfieldMemory(400, 9, beta=1.0)
    other = HopfieldMemory(400, 9, beta=1.0, generator=torch.Generator().manual_seed(1))
    assert torch.equal(first.items, again.items)
    assert not torch.equal(first.items, other.items)
    assert first.items.std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.equal(state, torch.random.get_rng_state())


def test_seeding_puts_items_where_the_features_are() -> None:
    centres = 5 * _random(6, 4, dtype=torch.float32)
    features = centres.repeat_interleave(30, dim=0) + 0.01 * _random(180, 4, dtype=torch.float32)
    memory = HopfieldMemory(6, 4, beta=math.inf)
    memory.seed(features, torch.Generator().manual_seed(0))
    assert torch.cdist(centres, memory.items).min(dim=1).values.max() < 0.02
    assert memory.items.requires_grad


@pytest.mark.parametrize("arguments", [{}, {"hard": True}, {"steps": None}, {"association": "dot"}])
def test_exported_graphs_take_any_number_of_queries(arguments: dict[str, Any]) -> None:
    memory = _memory(_random(8, 5, dtype=torch.float32), **arguments).eval()
    example = _random(4, 6, 5, seed=1, dtype=torch.float32)
    with exporting_here():
        graph = torch.export.export(memory, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    for n in (4, 1, 9):
        queries = _random(n, 6, 5, seed=n, dtype=torch.float32)
        torch.testing.assert_close(graph(queries), memory(queries), rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"beta": 0.0}, "beta"),
        ({"beta": math.nan}, "beta"),
        ({"steps": 0}, "steps"),
        ({"association": "cosine"}, "association"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ParameterError, match=named):
        HopfieldMemory(4, 3, **{"beta": 1.0, **arguments})
    with pytest.raises(ParameterError, match="n_items"):
        HopfieldMemory(0, 3, beta=1.0)


@pytest.mark.parametrize(("n_items", "dim"), [(40, 3), (8, 8), (5, 30)])
@pytest.mark.parametrize("chunk", [2**18, 64])
def test_the_nearest_item_is_as_far_as_it_is(
    n_items: int, dim: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items of many and of few features, in one piece and in many."""
    monkeypatch.setattr(hopfield, "_CHUNK_ELEMENTS", chunk)
    items, queries = 3 + _random(n_items, dim), 3 + _random(4, 25, dim, seed=1)
    memory = _memory(items, beta=math.inf)
    with torch.no_grad():
        found = memory.distances(queries)
    torch.testing.assert_close(found, torch.cdist(queries.flatten(0, 1), items).amin(dim=1).view(4, 25))


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("association", ["euclidean", "dot"])
@pytest.mark.parametrize("n_items", [40, 6])
def test_recall_with_distances_equals_both_calls(n_items: int, hard: bool, association: str) -> None:
    """To the last bit: normals are calibrated by the one and judged by the other."""
    memory = _memory(_random(n_items, 6), beta=3.0, association=association, hard=hard)
    queries = _random(2, 30, 5, 6, seed=1)
    with torch.inference_mode():
        recalled, distances = memory.recall_with_distances(queries)
        assert torch.equal(recalled, memory(queries))
        assert torch.equal(distances, memory.distances(queries))
    torch.testing.assert_close(distances, (queries - recalled).norm(dim=-1))


def test_hard_usage_counts_what_is_recalled() -> None:
    memory, queries = _memory(_random(40, 5), hard=True), _random(300, 5, seed=1)
    torch.testing.assert_close(memory.usage(queries), memory.associations(queries).mean(dim=0))


class _Distances(torch.nn.Module):
    def __init__(self, memory: HopfieldMemory) -> None:
        super().__init__()
        self.memory = memory

    def forward(self, queries: Tensor) -> Tensor:
        return self.memory.distances(queries)


def test_exported_distances_never_hold_all_items_at_once() -> None:
    memory, queries = _memory(_random(600, 5), hard=True), _random(70, 5, seed=1)
    free = {"queries": {0: torch.export.Dim("n", min=2)}}
    with exporting_here():
        program = torch.export.export(_Distances(memory), (queries[:9],), dynamic_shapes=free).run_decompositions()
    products = [node.meta["val"] for node in program.graph.nodes if "addmm" in str(node.target)]
    assert [product.shape[1] for product in products] == [256, 256, 88]
    torch.testing.assert_close(program.module()(queries), torch.cdist(queries, memory.items).amin(dim=1))


def test_retrieval_leaves_its_queries_as_they_are() -> None:
    memory, queries = _memory(_random(7, 5)), _random(30, 5, seed=1)
    before = queries.clone()
    with torch.inference_mode():
        memory(queries)
    assert torch.equal(queries, before)
