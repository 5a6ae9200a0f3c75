"""tessera reproduce on an experiment of seconds: arms that work, one that cannot, a repetition as processes, and what is
skipped, stale or interrupted afterwards."""
import json
import os
import signal
import subprocess
import time
import unittest

from harness import RunTest, TESSERA, write_corpus

BASE = """
seed = 1
slots = 2
rounds = 4
batch = 2
[model]
family = "gpt"
width = 16
layers = 1
heads = 2
context = 16
vocab = 256
[data]
tokenizer = "bytes"
[sync]
steps = 4
[inner]
name = "adamw"
lr = 3e-3
[eval]
every = 2
batches = 2
"""

ARMS = """
title = "A tiny experiment"
reference = "diloco"
[sizes.s]
set.rounds = 4
[data.grammar]
script = "bring.sh"
path = "text"
[grids.outer]
slow = {outer.lr = 0.01}
good = {outer.lr = 0.7}
[arms.diloco]
grid = "outer"
[arms.mlp_2]
label = "mlp N=2"
inherits = ["diloco"]
set.partial = {cut = "mlp", slices = 2}
[arms.strange]
set.partial.flavour = "mint"
[arms.one_slot]
alone = true
set.slots = 1
times = {sync.steps = 2}
[profiles.full]
seeds = [1, 2]
tuning_seed = 9
tuning_size = "s"
tuning_data = "grammar"
[profiles.full.covers.main]
size = "s"
data = "grammar"
arms = ["*"]
[profiles.full.repeat.processes]
arm = "mlp_2"
size = "s"
data = "grammar"
seed = 1
[plots.all]
arms = ["diloco", "mlp_2", "one_slot"]
"""

CLAIMS = """
[claims.close]
text = "mlp N=2 is no more than three times as bad"
arm = "mlp_2"
margin = 2.0
[claims.far]
text = "mlp N=2 is twice as good"
arm = "mlp_2"
margin = -0.5
"""


class Reproduce(RunTest):
    def setUp(self):
        super().setUp()
        self.folder = self.path("recipes", "tiny")
        os.makedirs(self.folder)
        for name, text in (("base", BASE), ("arms", ARMS), ("claims", CLAIMS)):
            with open(os.path.join(self.folder, name + ".toml"), "w") as out:
                out.write(text)
        write_corpus(self.path("source"))
        with open(self.path("bring.sh"), "w") as out:
            out.write('mkdir -p "$1" && cp source/*.txt "$1"\n')

    def reproduce(self, *arguments, code=0):
        done = subprocess.run([TESSERA, "reproduce", "tiny", *arguments], cwd=self.scratch, capture_output=True, text=True, errors="replace",
                              timeout=200)
        self.assertEqual(done.returncode, code, done.stdout[-3000:] + done.stderr[-2000:])
        return done.stdout

    def reproduce_says_why(self, code):
        done = subprocess.run([TESSERA, "reproduce", "tiny"], cwd=self.scratch, capture_output=True, text=True, errors="replace")
        self.assertEqual(done.returncode, code, done.stdout)
        return done.stderr

    def result(self, unit):
        with open(os.path.join(self.folder, "results", unit + ".json")) as file:
            return json.load(file)

    def report(self):
        with open(self.path("docs", "results", "tiny.md")) as file:
            return file.read()

    def test_runs_what_can_be_run_and_decides(self):
        said = self.reproduce(code=1)
        self.assertIn("there is no setting partial.flavour", said)
        self.assertIn("9 units run, 2 failed", said)
        slow, good = self.result("diloco-s-grammar-tune-slow"), self.result("diloco-s-grammar-tune-good")
        self.assertLess(good["final_loss"], slow["final_loss"], "the rate of 0.01 hardly moves")
        self.assertEqual(good["curve"]["round"], [2], "half of the rounds")
        run, processes = self.result("mlp_2-s-grammar-seed1"), self.result("mlp_2-s-grammar-seed1-processes")
        self.assertEqual(run["state_hash"], processes["state_hash"])
        self.assertEqual(run["recipe"]["outer.lr"], "0.7", "inherits what was tuned")
        self.assertEqual(run["tokens"], 2 * 2 * 16 * 4 * 4)
        self.assertEqual(run["curve"]["tokens"], [run["tokens"] / 2, run["tokens"]])
        self.assertGreaterEqual(run["measured_up"], run["bytes_up"])
        self.assertLess(run["measured_up"], 1.05 * run["bytes_up"], "names and shapes come on top of what the formula says")
        self.assertGreater(run["peak_bytes"], 2 ** 20)
        self.assertEqual(self.result("one_slot-s-grammar-seed2")["tokens"], run["tokens"])
        self.assertEqual(os.listdir(self.path("runs", "reproduce", "tiny", "runs")), ["grammar.log"], "runs are cleaned up")
        report = self.report()
        self.assertIn("which is that of the debug run", report)
        self.assertRegex(report, r"three times as bad \|.*\*\*holds\*\*")
        self.assertRegex(report, r"twice as good \|.*\*\*fails\*\*")
        self.assertIn("no setting partial.flavour", report)
        for axis in ("tokens", "flops", "bytes", "10mbit", "50mbit", "200mbit"):
            with open(self.path("docs", "results", "tiny", f"main-all-{axis}.svg")) as svg:
                self.assertIn("mlp N=2", svg.read())

        self.assertIn("0 units run, 2 failed", self.reproduce(code=1), "what is there is skipped")
        with open(os.path.join(self.folder, "base.toml"), "w") as out:
            out.write(BASE.replace("lr = 3e-3", "lr = 2e-3"))
        said = self.reproduce("--only", "one_slot*")
        self.assertIn("inner.lr: 0.003 -> 0.002", said)
        self.assertIn("0 units run, 0 failed", said)
        self.assertIn("2 units run, 0 failed", self.reproduce("--only", "one_slot*", "--redo-stale"))
        self.assertEqual(self.result("one_slot-s-grammar-seed1")["recipe"]["inner.lr"], "0.002")

    def test_ctrl_c_leaves_finished_units_and_no_rests(self):
        arguments = ["reproduce", "tiny", "--jobs", "1", "--only", "one_slot*"]
        with open(os.path.join(self.folder, "arms.toml"), "w") as out:
            out.write(ARMS.replace("set.rounds = 4", "set.rounds = 400"))
        process = self.start(*arguments, cwd=self.scratch)
        results = os.path.join(self.folder, "results")
        end = time.monotonic() + 100
        while not os.path.isdir(results) or not os.listdir(results):
            self.assertLess(time.monotonic(), end)
            self.assertIsNone(process.poll())
            time.sleep(0.02)
        time.sleep(0.3)
        self.assertIn("another tessera reproduce is at work", self.reproduce_says_why(code=1))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, out + err)
        self.assertIn("goes on with the others", out)
        self.assertEqual(os.listdir(results), ["one_slot-s-grammar-seed1.json"])
        self.assertEqual(os.listdir(self.path("runs", "reproduce", "tiny", "runs")), ["grammar.log"])

    def test_mistakes_are_told_before_anything_runs(self):
        with open(os.path.join(self.folder, "arms.toml"), "w") as out:
            out.write(ARMS.replace('grid = "outer"', 'grid = "outr"').replace("seeds = [1, 2]", "sedes = [1, 2]"))
        done = subprocess.run([TESSERA, "reproduce", "tiny"], cwd=self.scratch, capture_output=True, text=True, errors="replace")
        self.assertEqual(done.returncode, 2)
        for words in ("arms.diloco.grid names outr", "did you mean outer?", "no profiles.full.sedes", "did you mean seeds?"):
            self.assertIn(words, done.stderr)
        done = subprocess.run([TESSERA, "reproduce", "nothing"], cwd=self.scratch, capture_output=True, text=True, errors="replace")
        self.assertEqual(done.returncode, 2)
        self.assertIn("there is no experiment nothing", done.stderr)


if __name__ == "__main__":
    unittest.main()
