import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tilestream.codecs.fields.hashfield import HashField
from tilestream.codecs.fields.probefit import ProbedTable
from tilestream.codecs.fields.probing import ProbedGrid, Probing
from tilestream.errors import ConfigError, DamagedError
from tilestream.kernels.hash_encode import hash_encode
from tilestream.kernels.hashgrid import HashGrid

NARROW = HashGrid.spanning(n_min=4, n_max=40, levels=4, features=2, log2_table=6)
PROBED = ProbedGrid(narrow=NARROW, probing=Probing(log2_probes=2, log2_choices=5))


def numbers(seed=0):
    random = np.random.default_rng(seed)
    return (
        random.normal(size=(NARROW.entries, NARROW.features)).astype(np.float32),
        random.integers(0, 4, PROBED.choice_starts[-1]),
    )


def mixed(number, seed):
    """The finaliser in Python's whole numbers."""
    number ^= seed
    number = (number ^ number >> 16) * 0x85EBCA6B % 2**32
    number = (number ^ number >> 13) * 0xC2B2AE35 % 2**32
    return number ^ number >> 16


def test_levels_of_one_size_are_stored_as_they_are_and_finer_ones_are_probed():
    assert PROBED.wide.resolutions == NARROW.resolutions
    assert all(PROBED.wide.dense)
    sizes = list(zip(NARROW.sizes, PROBED.wide.sizes, strict=True))
    assert [level.level for level in PROBED.levels] == [level for level, (few, many) in enumerate(sizes) if few < many]
    assert PROBED.choice_starts == (0, 32, 64, 96)[: len(PROBED.levels) + 1]
    table, choices = numbers()
    baked = PROBED.bake(table, choices)
    first = NARROW.offsets[1]
    np.testing.assert_array_equal(baked[:first], table[:first])


def test_each_vertex_reads_what_the_formula_says():
    table, choices = numbers()
    baked = PROBED.bake(table, choices)
    for number, level in enumerate(PROBED.levels):
        start = PROBED.choice_starts[number]
        for vertex in range(PROBED.wide.sizes[level.level]):
            bucket = mixed(vertex, 0x9E3779B9) % (NARROW.sizes[level.level] // 4)
            choice = choices[start + mixed(vertex, 0x85EBCA77) % level.choices]
            expected = table[NARROW.offsets[level.level] + 4 * bucket + choice]
            np.testing.assert_array_equal(baked[PROBED.wide.offsets[level.level] + vertex], expected)


def test_what_is_baked_is_what_was_fitted():
    table, choices = numbers()
    probed = ProbedTable(PROBED)
    scores = probed.new_scores(None, torch.Generator().manual_seed(1))
    scores[torch.arange(len(scores)), torch.from_numpy(choices)] = 5
    wide = probed.expand(torch.from_numpy(table), scores)
    np.testing.assert_array_equal(wide.numpy(), PROBED.bake(table, choices))
    coords = np.random.default_rng(2).random((50, 2), np.float32)
    assert np.isfinite(hash_encode(coords, wide.numpy(), grid=PROBED.wide)).all()


def test_gradients_are_those_of_the_entry_read_and_of_the_mean_of_candidates():
    table, _ = numbers()
    entries = torch.from_numpy(table).double().requires_grad_(True)
    probed = ProbedTable(PROBED)
    scores = torch.randn(PROBED.choice_starts[-1], 4, generator=torch.Generator().manual_seed(3)).double()
    scores.requires_grad_(True)
    upstream = torch.randn(PROBED.wide.entries, 2, generator=torch.Generator().manual_seed(4)).double()
    (probed.expand(entries, scores) * upstream).sum().backward()
    found = entries.grad.clone(), scores.grad.clone()
    for of_scores in (False, True):
        entries.grad = scores.grad = None
        parts, weights = [entries[: NARROW.offsets[1]]], torch.softmax(scores, 1)
        if not of_scores:
            weights = torch.nn.functional.one_hot(weights.argmax(1), 4).double()
        for number, level in enumerate(PROBED.levels):
            own = entries[NARROW.offsets[level.level] : NARROW.offsets[level.level + 1]].view(-1, 4, 2)
            share = weights[PROBED.choice_starts[number] :][torch.from_numpy(level.places)]
            parts.append((own[torch.from_numpy(level.buckets)] * share[:, :, None]).sum(1))
        (torch.cat(parts) * upstream).sum().backward()
        torch.testing.assert_close(found[of_scores], scores.grad if of_scores else entries.grad)


def test_choices_are_learned():
    """Each vertex wants one of two values: with a choice of its own it finds the entry that has it."""
    grid = ProbedGrid(
        narrow=HashGrid(levels=1, n_min=30, growth=1.0, log2_table=5, features=1),
        probing=Probing(log2_probes=2, log2_choices=12),
    )
    probed, generator = ProbedTable(grid), torch.Generator().manual_seed(0)
    wanted = torch.randint(0, 2, (grid.wide.entries, 1), generator=generator).float()
    entries = torch.rand(32, 1, generator=generator).requires_grad_(True)
    scores = probed.new_scores(None, generator).requires_grad_(True)
    optimiser = torch.optim.Adam([entries, scores], lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        loss = (probed.expand(entries, scores) - wanted).square().mean()
        loss.backward()
        optimiser.step()
    assert loss < 0.08, "0.25 is what 32 entries give whose readers cannot choose"


def test_choices_are_a_few_bits_each_and_come_back():
    _, choices = numbers()
    data = PROBED.choices_to_bytes(choices)
    assert len(data) < 2 * len(choices) / 8 + 16
    np.testing.assert_array_equal(PROBED.choices_from_bytes(data), choices)
    unprobed = ProbedGrid(narrow=PROBED.wide, probing=PROBED.probing)
    assert unprobed.choices_from_bytes(unprobed.choices_to_bytes(choices[:0])).size == 0
    for wrong in (-1, 4):
        with pytest.raises(DamagedError):
            PROBED.choices_from_bytes(PROBED.choices_to_bytes(np.where(choices == 3, wrong, choices)))


@pytest.mark.parametrize("bits", [None, 6])
def test_a_hash_field_may_be_probed(bits):
    pixels = (np.add.outer(np.arange(40), np.arange(36)) * 3 % 200).astype(np.uint8)[None]
    field = HashField(
        levels=4, log2_table=6, n_min=4, n_max=30, hidden=16, layers=1, bits=bits, batch=512,
        probing=Probing(log2_probes=2, log2_choices=7),
    )  # fmt: skip
    first = field.fit(pixels, steps=5).psnr[0]
    assert field.fit(pixels, steps=60).psnr[0] > first + 3
    assert field.parts.probed.choices.any()
    assert field.parts.grid.entries > 4 * field.parts.stored_grid.entries
    stored = field.quantize()
    for one in (stored, field):
        back = HashField.from_bytes(one.to_bytes())
        expected = one.decode(level=0.5).astype(int)
        assert np.abs(back.decode(level=0.5) - expected).max() <= (0 if one is stored else 2)
        assert back.settings.probing == field.settings.probing
    reference = stored.decode(backend="torch")
    assert np.abs(stored.decode().astype(int) - reference).max() <= 1
    np.testing.assert_array_equal(back.quantize().parts.probed.choices, field.parts.probed.choices)


@pytest.mark.parametrize("options", [{"log2_probes": 0}, {"log2_probes": 7}, {"log2_choices": 2}, {"log2_choices": 25}])
def test_what_cannot_be_probed_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Probing(**options)


def test_a_grid_of_very_many_vertices_is_refused():
    with pytest.raises(ConfigError, match="16,777,216 vertices"):
        ProbedGrid(narrow=HashGrid(levels=16, n_min=2**20, growth=1.0, log2_table=8), probing=Probing())


def test_fewer_entries_than_probes_are_refused():
    with pytest.raises(ConfigError, match="at least `log2_probes`, 5"):
        ProbedGrid(narrow=HashGrid(levels=2, log2_table=4), probing=Probing(log2_probes=5))
