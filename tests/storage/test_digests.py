from dataclasses import dataclass

from iptkit.storage import digests


@dataclass(frozen=True)
class Config:
    steps: int = 3
    lr: float = 0.1


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digests.digest({"a": 1, "b": Config()}) == digests.digest({"b": Config(), "a": 1})
    assert digests.digest([Config()]) == digests.digest([{"steps": 3, "lr": 0.1}])
    assert len(digests.digest("x")) == 8
