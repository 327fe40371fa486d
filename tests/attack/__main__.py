"""The long attack: `python tests/attack --files 20000 --kills 100`, a table of what became of each.

The modules beside this file say what is damaged and how; the short form is in the tests. The exit status is 1
if there was a fault.
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

import killer
from attempts import OUTCOMES, attack
from doors import DOORS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/attack", description=__doc__)
    parser.add_argument("--files", type=int, default=20_000, help="damaged files in all")
    parser.add_argument("--kills", type=int, default=100, help="studies that are killed")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--only", default="", help="doors whose names hold this text")
    wishes = parser.parse_args()
    doors = [door for door in DOORS if wishes.only in door.name]
    share = wishes.files / sum(door.weight for door in doors)
    print(f"{'door':<22}{'files':>7}" + "".join(f"{name:>13}" for name in OUTCOMES), flush=True)
    faults, total = [], 0
    for door in doors:
        found = attack(door, max(1, round(share * door.weight)), wishes.seed) if wishes.files else None
        if found:
            counts = [found.counts[name] for name in OUTCOMES]
            print(f"{door.name:<22}{sum(counts):>7}" + "".join(f"{n:>13}" for n in counts), flush=True)
            faults += [f"{door.name}: {fault}" for fault in found.faults]
            total += sum(counts)
    print(f"{total} files, {len(faults)} faults shown below" if faults else f"{total} files, no fault")
    if wishes.kills:
        faults += kills(wishes.kills, wishes.seed)
    print("\n\n".join(faults))
    return int(bool(faults))


def kills(count: int, seed: int) -> list[str]:
    """Kill `count` studies and flip bits of a fifth as many stored files; prints how many ended otherwise."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="iptkit-attack-") as place:
        happened = killer.attack_apart(Path(place), count, count // 5, seed)
    faults = [f"study: {what}" for what in happened if what["problem"]]
    kinds = Counter(what["kind"] for what in happened)
    print(
        f"{kinds['kill']} killed studies and {kinds['flip']} flipped bits in {time.monotonic() - begun:.0f} s"
    )
    print(f"{len(faults)} of them ended otherwise than an undisturbed study")
    return faults


if __name__ == "__main__":
    raise SystemExit(main())
