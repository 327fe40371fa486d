"""Shares of prompts in a subspace, beside what geometry says of made-up banks."""

import pytest
import torch

from iptkit.methods import shares, subspace


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_plane_holds_its_own_prompts_and_no_more_of_others_than_chance():
    bank, others = drawn(10, 3, 200), drawn(400, 3, 200, seed=1)
    own = shares.in_plane(bank, bank, [1, 4, 9])
    assert own.shape == (3, 10) and torch.allclose(own[2], torch.ones(10).double()), "nine hold ten prompts"
    assert (own.diff(dim=0) >= 0).all() and own[1].mean() > 4 / 9, "the largest components come first"
    found = shares.in_plane(bank, others, [4, 9]).mean(1).tolist()
    chance = [shares.by_chance(dim, 600) for dim in (4, 9)]
    assert found == pytest.approx(chance, rel=0.3), "and no structure"
    assert torch.equal(
        shares.in_plane(bank, others[:2], [9, 4]), shares.in_plane(bank, others[:2], [4, 9])[[1, 0]]
    )


def test_what_prompts_share_is_found_in_those_left_out():
    shared = torch.linalg.qr(drawn(60, 3)).Q.t()  # all prompts lie in these three directions
    bank = (drawn(12, 3, seed=2) @ shared).view(12, 1, 60) + 5
    families = ["a", "a", "b", "b", "c", "c", "d", "d", "e", "e", "f", "f"]
    held = shares.without_family(bank, families, [1, 3])
    assert torch.allclose(held[1], torch.ones(12).double()) and (held[0] < 1).all()
    own_way = torch.zeros(12, 1, 60).double()
    for i, name in enumerate(families):  # every family has its own direction
        own_way[i, 0, "abcdef".index(name)] = (-1) ** i
    alone = shares.without_family(own_way, families, [5]).mean()
    assert alone < 0.01 < 0.99 < shares.in_plane(own_way, own_way, [6]).mean()


def test_what_an_autoencoder_gives_back():
    bank = drawn(6, 2, 8).float()
    autoencoder = subspace.AutoEncoder(bank, subspace.SubspaceConfig(2, 16), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for layer in (autoencoder.decoder.outer,):
            layer.weight.zero_()
            layer.bias.zero_()
    assert shares.rebuilt(autoencoder, bank).tolist() == pytest.approx([0.0] * 6, abs=1e-6), "the mean prompt"
    with torch.no_grad():
        autoencoder.decoder.outer.bias.copy_(autoencoder.flat[0])
    found = shares.rebuilt(autoencoder, bank)
    assert found[0] == pytest.approx(1.0) and found[1:].max() < 1.0


def test_wrong_inputs_are_told():
    bank = drawn(5, 2, 4)
    with pytest.raises(ValueError, match="dims are 5; 5 prompts have 1 to 4 components"):
        shares.in_plane(bank, bank, [5])
    with pytest.raises(ValueError, match="dims are none"):
        shares.in_plane(bank, bank, [])
    with pytest.raises(ValueError, match=r"prompts have the shape \[2, 3\], those of the bank \[2, 4\]"):
        shares.in_plane(bank, drawn(1, 2, 3), [1])
    with pytest.raises(ValueError, match="4 families were given for 5 prompts"):
        shares.without_family(bank, list("abcd"), [1])
    with pytest.raises(ValueError, match="2 prompts have 1 to 1 components"):
        shares.without_family(bank, list("aaabb"), [2])
