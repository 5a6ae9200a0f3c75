"""metrics.jsonl, the Prometheus page and the state hash say what happened, also after kills."""
import os
import shutil
import subprocess
import sys
import time
import unittest

from harness import RunTest, SOURCE

sys.path.insert(0, os.path.join(SOURCE, "tests", "reference"))
from chain_hash import chain_hash  # noqa: E402


def promtool():
    return shutil.which("promtool") or os.path.join(SOURCE, ".deps/tools/prometheus/usr/bin/promtool")


class Rows(RunTest):
    def check_rows(self, run, rounds, every):
        rows = self.rows(run)
        self.assertEqual([row["round"] for row in rows], list(range(1, rounds + 1)))
        self.assertEqual([row["round"] for row in rows if "eval_loss" in row], list(range(every, rounds + 1, every)))
        for row in rows:
            self.assertEqual(row["units"], 4 * 4 * 2 * 32, "slots x steps x batch x context")
            self.assertEqual(row["contributions"], 4)
            self.assertEqual(row["uncovered"], 0)
            for name in ("loss", "flops", "flops_saved", "bytes_up", "bytes_down", "seconds", "state_hash"):
                self.assertIn(name, row)
        return rows

    def test_one_row_per_committed_round_in_order_also_after_kills(self):
        run = self.path("run")
        rounds = ["--rounds", "30", "--set", "eval.every=3"]
        train = self.start("train", self.recipe, "--out", run, "--quiet", *rounds)
        for after, role in ((3, "coordinator"), (8, "worker"), (12, "coordinator")):
            self.await_rounds(run, after, train)
            self.kill(self.role_pids(run, role)[0])
        self.await_rounds(run, 18, train)
        self.kill(train.pid)
        train.wait()
        with open(os.path.join(run, "metrics.jsonl"), "a") as rows:
            rows.write('{"round":19,"uni')  # a crash in the middle of a row
        self.run_tessera("train", self.recipe, "--out", run, "--quiet", "--resume", *rounds)
        rows = self.check_rows(run, 30, 3)
        self.run_tessera("debug", self.recipe, "--out", self.path("reference"), "--quiet", *rounds)
        for row, reference in zip(rows, self.check_rows(self.path("reference"), 30, 3)):
            for name in ("state_hash", "loss", "eval_loss"):
                self.assertEqual(row.get(name), reference.get(name), f"{name} of round {row['round']}")
        self.assertLess(rows[-1]["eval_loss"], rows[2]["eval_loss"], "it learns")

    def test_rows_that_a_restarted_coordinator_writes_anew_name_their_fragments(self):
        run = self.path("run")
        settings = ["--set", "outer.name=streaming", "--set", "outer.fragments=2"]
        self.run_tessera("train", self.recipe, "--out", run, "--quiet", "--rounds", "6", *settings)
        before = self.rows(run)
        os.remove(os.path.join(run, "metrics.jsonl"))  # as if each predecessor had died between commit and row
        self.run_tessera("train", self.recipe, "--out", run, "--quiet", "--resume", "--rounds", "7", *settings)
        rows = self.rows(run)
        self.assertEqual([(row["round"], row.get("fragment")) for row in rows[:len(before)]], [(row["round"], row["fragment"]) for row in before])
        self.assertGreater(len(rows), len(before))


class StateHash(RunTest):
    def test_a_short_script_recomputes_it_and_a_flipped_weight_or_moment_changes_it(self):
        run = self.path("run")
        self.run_tessera("debug", self.recipe, "--out", run, "--quiet")
        hashes = dict(self.hashes(run))
        for version in (4, 6):
            self.assertEqual(chain_hash(run, version), hashes[version])
        for shard in ("parameters", "outer", "slot-02"):
            path = os.path.join(run, "checkpoints", "00000006", shard + ".safetensors")
            with open(path, "r+b") as file:
                file.seek(-9, os.SEEK_END)
                byte = file.read(1)
                file.seek(-9, os.SEEK_END)
                file.write(bytes([byte[0] ^ 4]))
                file.flush()
                self.assertNotEqual(chain_hash(run, 6), hashes[6], f"one bit of {shard}")
                file.seek(-9, os.SEEK_END)
                file.write(byte)
        self.assertEqual(chain_hash(run, 6), hashes[6])


class Page(RunTest):
    def await_metric(self, run, process, name, wanted, at_most=30):
        """Waits until a metric of the page is as wanted; the page."""
        end = time.monotonic() + at_most
        while True:
            self.assertIsNone(process.poll(), f"ended early:\n{self.logs(run)}")
            page = self.page(run)
            if wanted(self.metric(page, name)):
                return page
            self.assertLess(time.monotonic(), end, f"{name} is {self.metric(page, name)}\n{self.logs(run)}")
            time.sleep(0.05)

    def test_the_page_is_good_prometheus_and_follows_the_run_through_the_loss_of_a_worker(self):
        run = self.path("run")
        train = self.start("train", self.recipe, "--out", run, "--quiet", "--rounds", "3000", "--workers", "3")
        self.await_rounds(run, 4, train)
        page = self.await_metric(run, train, "tessera_workers_alive", lambda alive: alive == 3)
        lint = subprocess.run([promtool(), "check", "metrics"], input=page, capture_output=True, text=True)
        self.assertEqual(lint.returncode, 0, lint.stdout + lint.stderr)
        committed = self.metric(page, "tessera_rounds_committed_total")
        self.assertGreaterEqual(committed, 3)
        page = self.await_metric(run, train, "tessera_rounds_committed_total", lambda now: now > committed + 2)
        self.assertEqual(self.metric(page, "tessera_units_total"), 1024 * self.metric(page, "tessera_rounds_committed_total"))
        self.assertEqual(self.metric(page, "tessera_slots_leased"), 4)
        self.assertEqual(self.metric(page, 'tessera_recoveries_total{kind="worker"}'), 0)
        self.assertEqual(self.metric(page, "tessera_epoch"), 1)
        self.assertEqual(self.metric(page, 'tessera_stale_messages_total{reason="epoch"}'), 0)
        self.assertGreater(self.metric(page, 'tessera_wire_bytes_total{direction="shared_in"}'), 0, "bulk data by shared memory")
        self.assertGreater(self.metric(page, 'tessera_wire_bytes_total{direction="control_in"}'), 0)
        for name in ("tessera_loss", "tessera_eval_loss", "tessera_checkpoint_bytes", "tessera_checkpoint_seconds_count",
                     'tessera_round_phase_seconds_count{phase="compute"}', "tessera_step_seconds_count"):
            self.assertGreater(self.metric(page, name), 0, name)
        self.kill(self.role_pids(run, "worker")[0])
        self.await_metric(run, train, 'tessera_recoveries_total{kind="worker"}', lambda count: count == 1)
        page = self.await_metric(run, train, "tessera_workers_alive", lambda alive: alive == 3)
        committed = self.metric(page, "tessera_rounds_committed_total")
        self.await_metric(run, train, "tessera_rounds_committed_total", lambda now: now > committed + 2)
        self.kill(self.role_pids(run, "coordinator")[0])
        time.sleep(0.5)
        end = time.monotonic() + 20
        while True:  # the new coordinator's page
            try:
                page = self.page(run)
                if self.metric(page, "tessera_epoch") == 2:
                    break
            except OSError:
                pass
            self.assertLess(time.monotonic(), end, self.logs(run))
            time.sleep(0.1)
        self.assertEqual(self.metric(page, 'tessera_recoveries_total{kind="coordinator"}'), 1)


if __name__ == "__main__":
    unittest.main()
