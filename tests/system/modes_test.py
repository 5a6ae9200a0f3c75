"""All launch modes give the same hashes; the seed matters; runs that were killed go on bit for bit."""
import os
import shutil
import signal
import subprocess
import time
import unittest

from harness import RunTest, TESSERA


class Modes(RunTest):
    def test_train_gives_the_hashes_of_debug_on_any_number_of_workers(self):
        reference = self.reference()
        self.assertEqual([number for number, _ in reference], [1, 2, 3, 4, 5, 6])
        for workers in ("1", "2", "3", "4"):
            run = self.path("train" + workers)
            self.run_tessera("train", self.recipe, "--out", run, "--quiet", "--workers", workers)
            self.assertEqual(self.hashes(run), reference, f"{workers} workers")

    def test_another_seed_gives_other_hashes(self):
        first = self.reference()
        run = self.path("other")
        self.run_tessera("debug", self.recipe, "--out", run, "--quiet", "--seed", "8")
        self.assertFalse(set(self.hashes(run)) & set(first))

    def test_data_parallel_trains_in_both_modes_alike(self):
        settings = ["--set", "outer.name=data_parallel", "--set", "sync.steps=1", "--set", "partial.cut=none",
                    "--set", "partial.slices=1", "--rounds", "8"]
        reference = self.reference(*settings)
        run = self.path("train")
        self.run_tessera("train", self.recipe, "--out", run, "--quiet", *settings)
        self.assertEqual(self.hashes(run), reference)

    def test_every_assignment_trains_in_both_modes_alike(self):
        for settings in (["cut=layer"], ["cut=blocks.*.mlp.*", "slices=3", "frozen=[\"embed.positions\"]"],
                         ["cut=tensor", "slices=4", "replicas=2", "rotate_every=1"],
                         ["assign=explicit", "owners=[\"0,1,2\", \"3\"]", "rotate_every=2"],
                         ["slices=3", "assign=balanced", "speeds=[1, 2, 1.5, 1]"],
                         ["assign=block", "slices=4", "rotate_every=1"]):
            with self.subTest(settings):
                flags = [flag for setting in settings for flag in ("--set", "partial." + setting)]
                shutil.rmtree(self.path("debug"), ignore_errors=True)
                shutil.rmtree(self.path("train"), ignore_errors=True)
                reference = self.reference(*flags, run="debug")
                self.run_tessera("train", self.recipe, "--out", self.path("train"), "--quiet", *flags)
                self.assertEqual(self.hashes(self.path("train")), reference)
                self.assertEqual({row["uncovered"] for row in self.rows(self.path("train"))}, {0})

    def test_mpirun_gives_the_hashes_of_debug(self):
        reference = self.reference()
        run = self.path("mpi")
        done = subprocess.run(["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "5", TESSERA, "run", self.recipe, "--out", run],
                              capture_output=True, text=True, errors="replace", timeout=100)
        self.assertEqual(done.returncode, 0, done.stdout[-2000:] + done.stderr[-2000:] + self.logs(run))
        self.assertEqual(self.hashes(run), reference)


class Recovery(RunTest):
    rounds = ["--rounds", "30"]

    def test_a_finished_run_goes_on_with_more_rounds_bit_for_bit(self):
        horizon = ["--set", "schedule.horizon=24"]  # written out, or more rounds would mean another schedule
        reference = self.reference("--rounds", "6", *horizon)
        run = self.path("run")
        for rounds, extra in (("2", []), ("3", ["--resume"]), ("6", ["--resume"])):
            self.run_tessera("debug", self.recipe, "--out", run, "--quiet", "--rounds", rounds, *horizon, *extra)
            self.assertEqual(self.hashes(run), reference[: int(rounds)])

    def test_a_killed_worker_is_replaced_and_changes_no_bit(self):
        reference = self.reference(*self.rounds)
        run = self.path("run")
        train = self.start("train", self.recipe, "--out", run, "--quiet", *self.rounds)
        for after in (2, 6, 11):
            self.await_rounds(run, after, train)
            self.kill(self.role_pids(run, "worker")[0])
        self.finish(train, run)
        self.assertEqual(self.hashes(run), reference)

    def test_owners_that_rotate_survive_killed_workers_and_a_resume(self):
        self.rotated("reset")

    def test_moments_that_are_handed_over_survive_them_too(self):
        self.rotated("hand_over")

    def test_dropout_survives_them_too(self):
        self.rotated("hand_over", "--set", "model.dropout=0.2")

    def test_frozen_rows_in_bf16_survive_them_too(self):
        with open("/proc/cpuinfo") as info:
            if "avx512_bf16" not in info.read():
                self.skipTest("this processor has no bf16 products")
        self.rotated("hand_over", "--set", "model.precision=bf16", "--set", 'partial.frozen=["embed.*"]')

    def rotated(self, state, *more):
        rotation = ["--set", "partial.rotate_every=1", "--set", "partial.slices=4", "--set", "partial.replicas=2",
                    "--set", "schedule.horizon=120", "--set", "partial.rotate_state=" + state, *more]
        reference = self.reference(*self.rounds, *rotation)
        run = self.path("run")
        train = self.start("train", self.recipe, "--out", run, "--quiet", "--rounds", "15", *rotation)
        for after in (3, 8):
            self.await_rounds(run, after, train)
            self.kill(self.role_pids(run, "worker")[0])
        self.finish(train, run)
        self.run_tessera("debug", self.recipe, "--out", run, "--quiet", "--resume", *self.rounds, *rotation)
        self.assertEqual(self.hashes(run), reference)

    def test_a_killed_coordinator_is_restarted_and_loses_no_round(self):
        reference = self.reference(*self.rounds)
        run = self.path("run")
        train = self.start("train", self.recipe, "--out", run, "--quiet", *self.rounds)
        for after in (2, 7, 13):
            self.await_rounds(run, after, train)
            self.kill(self.role_pids(run, "coordinator")[0])
        self.finish(train, run)
        self.assertEqual(self.hashes(run), reference)

    def test_fast_values_survive_the_death_of_workers_and_coordinator(self):
        for slices in ("4", "2"):  # one owner of each slice, and two
            settings = [*self.rounds, "--set", "partial.owner_view=fast", "--set", f"partial.slices={slices}"]
            run = self.path("run" + slices)
            plain = self.path("plain" + slices)
            self.run_tessera("debug", self.recipe, "--out", plain, "--quiet", *settings)
            train = self.start("train", self.recipe, "--out", run, "--quiet", *settings)
            for after, role in ((2, "worker"), (6, "coordinator"), (11, "worker")):
                self.await_rounds(run, after, train)
                self.kill(self.role_pids(run, role)[0])
            self.finish(train, run)
            self.assertEqual(self.hashes(run), self.hashes(plain), f"{slices} slices")

    def test_killing_train_ends_all_processes_and_resume_goes_on(self):
        reference = self.reference(*self.rounds)
        for mode in ("train", "debug"):
            with self.subTest(mode):
                self.kill_train_and_resume(mode, reference)

    def kill_train_and_resume(self, mode, reference):
        run = self.path("run-" + mode)
        train = self.start("train", self.recipe, "--out", run, "--quiet", *self.rounds)
        self.await_rounds(run, 5, train)
        shared = self.endpoints(run)["shared_folder"]
        self.kill(train.pid)
        train.wait()
        end = time.monotonic() + 3
        while self.processes(run) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(self.processes(run), [], "left behind after 3 s")
        self.assertTrue(os.path.isdir(shared), "where contributions are staged")
        # Whatever was acknowledged is found there again, in either mode: nothing goes back to a checkpoint.
        self.run_tessera(mode, self.recipe, "--out", run, "--quiet", "--resume", *self.rounds)
        self.assertEqual(self.hashes(run), reference)
        self.assertNotIn("going back", self.logs(run))
        self.assertFalse(os.path.exists(shared), "it goes with the run")

    def test_ctrl_c_checkpoints_and_says_how_to_resume(self):
        reference = self.reference(*self.rounds)
        run = self.path("run")
        train = self.start("train", self.recipe, "--out", run, *self.rounds)
        self.await_rounds(run, 3, train)
        self.kill(train.pid, signal.SIGINT)
        out, _ = self.finish(train, run, code=75)
        self.assertIn("--resume", out)
        self.run_tessera("debug", self.recipe, "--out", run, "--quiet", "--resume", *self.rounds)
        self.assertEqual(self.hashes(run), reference)

    def test_resume_without_slot_states_falls_back_to_a_checkpoint(self):
        reference = self.reference(*self.rounds)
        run = self.path("run")
        train = self.start("train", self.recipe, "--out", run, "--quiet", *self.rounds)
        self.await_rounds(run, 5, train)
        self.kill(train.pid)
        train.wait()
        time.sleep(1)
        subprocess.run(["rm", "-rf", os.path.join(run, "slots")], check=True)
        self.run_tessera("train", self.recipe, "--out", run, "--quiet", "--resume", *self.rounds)
        self.assertEqual(self.hashes(run), reference)

    def test_losing_the_coordinator_and_all_slot_states_at_once_goes_back_under_living_workers(self):
        reference = self.reference(*self.rounds)
        run = self.path("run")
        train = self.start("train", self.recipe, "--out", run, "--quiet", *self.rounds)
        self.await_rounds(run, 5, train)
        workers = self.role_pids(run, "worker")
        for worker in workers:
            self.kill(worker, signal.SIGSTOP)  # alive, but they write nothing while their states are taken away
        # States that are there, not the folders: a worker may have been stopped between writing one and naming it.
        subprocess.run(["find", os.path.join(run, "slots"), "-name", "*.safetensors", "-delete"], check=True)
        self.kill(self.role_pids(run, "coordinator")[0])
        for worker in workers:
            self.kill(worker, signal.SIGCONT)
        self.finish(train, run)
        self.assertEqual(self.hashes(run), reference)


if __name__ == "__main__":
    unittest.main()
