"""A process is killed at any moment of a change; nothing that it had acknowledged is lost, and nothing is half there.

``DSE_KILLS=500`` kills that often; the few kills of a normal run take seconds.
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.index.lettered import build_letters, check_search, contents, open_live

KILLS = int(os.environ.get("DSE_KILLS", "12"))

CHILD = """
import json, random, sys
from pathlib import Path
from tests.index.lettered import open_live, upsert

live, rng = open_live(Path(sys.argv[1])), random.Random(int(sys.argv[2]))
say = lambda *step: print(json.dumps(step), flush=True)
say("ready")
while True:
    ids = rng.sample([f"id{n}" for n in range(20)], rng.randint(1, 4))
    kind = rng.random()
    if kind < 0.6:
        texts = {id_: "".join(rng.choices("abcdef", k=5)) for id_ in ids}
        say("upsert", texts)
        upsert(live, texts)
    elif kind < 0.85:
        say("delete", ids)
        live.delete(ids)
    else:
        say("compact", None)
        live.compact()
    say("done")
"""


def after(state: dict[str, str], step: list) -> dict[str, str]:
    kind, what = step
    if kind == "upsert":
        return state | what
    return {id_: text for id_, text in state.items() if kind != "delete" or id_ not in what}


@pytest.mark.parametrize("round_", range(2))
def test_killed_at_any_moment(tmp_path: Path, round_: int) -> None:
    state = {"keep": "listen"}
    folder = build_letters(tmp_path / "index", state)
    rng = random.Random(round_)
    for kill in range(KILLS // 2):
        arguments = [sys.executable, "-c", CHILD, str(folder), str(rng.randrange(10**9))]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert json.loads(child.stdout.readline()) == ["ready"]
            time.sleep(rng.uniform(0, 0.15))
            child.kill()
            lines = [json.loads(line) for line in child.stdout.read().splitlines() if line.endswith("]")]
        begun = None
        for line in lines:
            if line == ["done"]:
                assert begun is not None
                state, begun = after(state, begun), None
            else:
                begun = line
        with open_live(folder) as live:
            found = contents(live.view())
            allowed = [state] if begun is None else [state, after(state, begun)]
            assert found in allowed, f"kill {kill}: {begun}"
            state = found
            check_search(live.view(), state, "abcdef", 5)
    with open_live(folder) as live:
        assert contents(live.compact()) == state
    assert not list(folder.glob("generations/*.partial"))
