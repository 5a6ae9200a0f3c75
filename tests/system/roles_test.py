"""Roles started by hand, and what is done with a run afterwards."""
import json
import os
import random
import signal
import socket
import time
import unittest

from harness import RunTest


def two_free_ports():
    """P and P + 1, both free, and not of those that the system gives to tests beside this one before they are used."""
    while True:
        port = random.randrange(15000, 32000)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
                return port
            except OSError:
                continue


class ByHand(RunTest):
    def test_a_coordinator_and_workers_on_one_run_directory_give_the_hashes_of_debug(self):
        run = self.path("run")
        coordinator = self.start("coordinator", self.recipe, "--out", run, "--quiet")
        end = time.monotonic() + 20
        while not os.path.exists(os.path.join(run, "endpoints.json")):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        workers = [self.start("worker", "--connect", run, "--capacity", "2") for _ in range(2)]
        for process in (coordinator, *workers):
            self.finish(process, run)
        self.assertEqual(self.hashes(run), self.reference())

    def test_workers_that_only_know_host_and_port_move_bulk_over_sockets_and_give_the_hashes_of_debug(self):
        horizon = ["--set", "schedule.horizon=24"]
        run = self.path("run")
        port = two_free_ports()
        coordinator = self.start("coordinator", self.recipe, "--out", run, "--quiet", "--port", str(port), "--rounds", "100000", *horizon)
        workers = [self.start("worker", "--connect", f"127.0.0.1:{port}", "--capacity", "2") for _ in range(2)]
        self.await_rounds(run, 5, coordinator)
        self.assertEqual(self.endpoints(run)["control"], f"tcp://127.0.0.1:{port}")
        self.assertEqual(self.endpoints(run)["bulk"], f"tcp://127.0.0.1:{port + 1}")
        page = self.page(run)
        self.assertEqual(self.metric(page, 'tessera_wire_bytes_total{direction="shared_in"}'), 0)
        up = self.rows(run)[0]["bytes_up"]
        for direction in ("bulk_in", "bulk_out"):
            self.assertGreater(self.metric(page, f'tessera_wire_bytes_total{{direction="{direction}"}}'), up)
        self.kill(coordinator.pid, signal.SIGINT)
        self.finish(coordinator, run, code=75)
        for worker in workers:
            worker.communicate(timeout=30)
        hashes, reference = self.hashes(run), self.reference("--rounds", "30", *horizon)
        self.assertEqual(hashes[:30], reference[:len(hashes)])


class Afterwards(RunTest):
    def setUp(self):
        super().setUp()
        self.run_folder = self.path("run")
        self.run_tessera("debug", self.recipe, "--out", self.run_folder, "--quiet")

    def test_eval_gives_the_loss_of_the_metrics_and_generate_is_repeatable(self):
        last = self.rows(self.run_folder)[-1]
        scores = json.loads(self.run_tessera("eval", self.run_folder, "--json").stdout)
        self.assertEqual(scores["round"], 6)
        self.assertAlmostEqual(scores["model"]["loss"], last["eval_loss"], places=4)
        self.assertGreater(scores["model"]["bits_per_byte"], 0)
        self.assertIn("unigram", self.run_tessera("eval", self.run_folder, "--round", "4").stdout)
        self.assertIn("4, 6", self.run_tessera("eval", self.run_folder, "--round", "5", code=2).stderr)
        self.assertIn("no run directory", self.run_tessera("eval", self.path("nowhere"), code=2).stderr)
        texts = [self.run_tessera("generate", self.run_folder, "--prompt", "the cat", "--tokens", "30", "--seed", seed).stdout
                 for seed in ("1", "1", "2")]
        self.assertTrue(texts[0].startswith("the cat"))
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], texts[2])

    def test_inspect_shows_rounds_and_verified_tensors(self):
        shown = self.run_tessera("inspect", self.run_folder).stdout
        for words in ("6 committed rounds, checkpoints of rounds 4, 6", self.hashes(self.run_folder)[2][1], "all checksums good", "blocks.0.mlp.up"):
            self.assertIn(words, shown)
        stored = json.loads(self.run_tessera("inspect", self.run_folder, "--round", "4", "--json").stdout)["stored"]
        self.assertEqual(stored["version"], 4)
        self.assertEqual(sorted(stored["shards"]), ["outer", "parameters", "slot-00", "slot-01", "slot-02", "slot-03"])
        self.assertIn("nothing-here", self.run_tessera("inspect", self.path("nothing-here"), code=2).stderr)

    def test_diff_finds_the_first_round_and_tensor_that_differ(self):
        other = self.path("other")
        self.run_tessera("debug", self.recipe, "--out", other, "--quiet")
        self.assertIn("All 6 rounds have equal state hashes", self.run_tessera("diff", self.run_folder, other).stdout)
        changed = self.path("changed")
        self.run_tessera("debug", self.recipe, "--out", changed, "--quiet", "--set", "outer.lr=0.5")
        shown = self.run_tessera("diff", self.run_folder, changed, code=1).stdout
        for words in ("outer.lr", "First differing round: 1", "largest difference"):
            self.assertIn(words, shown)


if __name__ == "__main__":
    unittest.main()
