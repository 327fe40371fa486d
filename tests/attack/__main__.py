"""The long attack on files and studies: `python tests/attack --files 20000 --kills 100`.

It opens damaged files, kills studies, prints a table of the outcomes and exits with 1 if there was a fault.
doors.py lists the files, damage.py the kinds of damage, and killer.py kills studies. The tests run a short
form.
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
    parser.add_argument("--files", type=int, default=20_000, help="number of damaged files")
    parser.add_argument("--kills", type=int, default=100, help="number of studies to kill")
    parser.add_argument("--seed", type=int, default=0, help="seeds the random draws")
    parser.add_argument("--only", default="", help="attack only doors whose names contain this text")
    options = parser.parse_args()
    doors = [door for door in DOORS if options.only in door.name]
    share = options.files / sum(door.weight for door in doors)
    print(f"{'door':<22}{'files':>7}" + "".join(f"{name:>13}" for name in OUTCOMES), flush=True)
    faults, total = [], 0
    for door in doors:
        found = attack(door, max(1, round(share * door.weight)), options.seed) if options.files else None
        if found:
            counts = [found.counts[name] for name in OUTCOMES]
            print(f"{door.name:<22}{sum(counts):>7}" + "".join(f"{n:>13}" for n in counts), flush=True)
            faults += [f"{door.name}: {fault}" for fault in found.faults]
            total += sum(counts)
    print(f"{total} files, {len(faults)} faults shown below" if faults else f"{total} files, no fault")
    if options.kills:
        faults += kills(options.kills, options.seed)
    print("\n\n".join(faults))
    return int(bool(faults))


def kills(count: int, seed: int) -> list[str]:
    """Kill `count` studies, flip bits in a fifth as many stored files, and return the faults."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="iptkit-attack-") as place:
        happened = killer.attack_apart(Path(place), count, count // 5, seed)
    faults = [f"study: {what}" for what in happened if what["problem"]]
    kinds = Counter(what["kind"] for what in happened)
    print(
        f"{kinds['kill']} killed studies and {kinds['flip']} flipped bits in {time.monotonic() - begun:.0f} s"
    )
    print(f"{len(faults)} of them ended with other rows than an undisturbed study")
    return faults


if __name__ == "__main__":
    raise SystemExit(main())
