"""What users, disks and strangers do wrong gets a clear sentence and the right exit code, and loses nothing."""
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
import unittest

from harness import RunTest, TESSERA

FAILED, USAGE, STORAGE, RESUMABLE, FENCED, REFUSED = 1, 2, 74, 75, 76, 78
HORIZON = ["--set", "schedule.horizon=24"]


class BadRecipe(RunTest):
    def refused(self, *arguments, says, recipe=None, code=USAGE):
        """train ends with `code` and all the words, and leaves no run behind."""
        run = self.path("refused")
        done = self.run_tessera("train", recipe or self.recipe, "--out", run, *arguments, code=code)
        for words in says:
            self.assertIn(words, done.stderr)
        self.assertFalse(os.path.exists(run), "nothing was started, so nothing lies there")

    def test_typos_are_told_all_at_once_with_place_and_nearest_name(self):
        typos = self.path("typos.toml")
        with open(self.recipe) as good, open(typos, "w") as out:
            out.write(good.read().replace("width = 32", "widht = 32").replace("steps = 4", "steps = \"four\""))
        self.refused(recipe=typos, says=[
            "typos.toml:9:1", "model.widht", "did you mean model.width?", "typos.toml:17:9", "sync.steps"])

    def test_settings_that_cannot_work_are_refused_before_anything_starts(self):
        self.refused(recipe=self.path("no.toml"), says=["there is no recipe file", "no.toml"])
        self.refused("--set", "sync.steps=0", says=["sync.steps must be at least 1, got 0"])
        self.refused("--set", "partial.slices=200", "--set", "slots=200",
                     says=["partial.slices = 200 is more than the 128 units", "use at most 128"])
        self.refused("--set", "partial.cut=blocks.*.mpl.up", says=["no trained parameter", "'blocks.0.mlp.up'"])
        self.refused("--set", "partial.slices=8", says=["partial.slices = 8", "slots = 4"])
        self.refused("--set", "model.attention_mask=none", says=['model.attention_mask = "none" shows every position the token', '"causal"'])

    def test_an_empty_or_tiny_corpus_is_refused(self):
        for name, text, words in (("empty", "", "has 0 bytes of training text"), ("tiny", "tea.", "is too small")):
            folder = self.path(name)
            os.mkdir(folder)
            for file in ("train.txt", "held_out.txt"):
                with open(os.path.join(folder, file), "w") as out:
                    out.write(text)
            self.refused("--set", f"data.path={folder}", says=[folder, words, "held_out.txt"])
        self.refused("--set", "data.path=/nowhere", says=["there is no corpus at '/nowhere'"])

    def test_a_taken_port_is_named_by_train_itself_and_another_port_goes_on(self):
        run = self.path("run")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            done = self.run_tessera("train", self.recipe, "--out", run, "--set", f"net.port={port}", code=FAILED)
            self.assertIn(f"cannot listen on tcp://127.0.0.1:{port}: Address already in use", done.stderr)
        self.run_tessera("train", self.recipe, "--out", run, "--quiet", "--resume")
        self.assertEqual(self.hashes(run), self.reference())


class UsedRuns(RunTest):
    def test_a_used_out_needs_resume_and_the_recipe_it_was_made_with(self):
        run = self.path("run")
        self.run_tessera("debug", self.recipe, "--out", run, "--quiet", "--rounds", "4", *HORIZON)
        before = self.hashes(run)
        for arguments, words in (([], "holds a run already; add --resume"),
                                 (["--resume", "--rounds", "3"], "rounds: 4 -> 3 (a resumed run may be longer, not shorter)"),
                                 (["--resume", "--rounds", "4", "--set", "inner.lr=0.1"], "inner.lr: 0.003 -> 0.1"),
                                 (["--resume", "--rounds", "4", "--seed", "8"], "seed: 7 -> 8")):
            done = self.run_tessera("train", self.recipe, "--out", run, "--quiet", *HORIZON, *arguments, code=USAGE)
            self.assertIn(words, done.stderr)
            self.assertNotIn("problems", done.stderr)
        self.assertEqual(self.hashes(run), before)
        self.run_tessera("debug", self.recipe, "--out", run, "--quiet", "--resume", "--rounds", "6", *HORIZON)
        self.assertEqual(self.hashes(run), self.reference("--rounds", "6", *HORIZON))


    def test_a_longer_run_says_that_it_stretches_the_schedule_and_can_leave_it(self):
        run, kept = self.path("run"), ["--set", "schedule.horizon=16"]
        for folder in (run, self.path("other")):
            self.run_tessera("debug", self.recipe, "--out", folder, "--quiet", "--rounds", "4")
        longer = ["debug", self.recipe, "--quiet", "--resume", "--rounds", "6"]
        done = self.run_tessera(*longer, "--out", self.path("other"))
        self.assertIn("rounds 4 -> 6 moves the end of schedule", done.stderr)
        self.assertIn("schedule.horizon = 16 leaves it as it was", done.stderr)
        done = self.run_tessera(*longer, "--out", run, "--set", "schedule.horizon=17", code=USAGE)
        self.assertIn("schedule.horizon", done.stderr)
        done = self.run_tessera(*longer, "--out", run, *kept)
        self.assertEqual(done.stderr, "")
        self.assertEqual(self.hashes(run), self.reference("--rounds", "6", *kept))


class Damage(RunTest):
    """Checkpoints 4 and 6 of a finished run of 6 rounds."""

    def setUp(self):
        super().setUp()
        self.run_folder = self.path("run")
        self.run_tessera("debug", self.recipe, "--out", self.run_folder, "--quiet", *HORIZON)

    def file(self, name, version=6):
        return os.path.join(self.run_folder, "checkpoints", f"{version:08}", name)

    def cut(self):
        os.truncate(self.file("parameters.safetensors"), os.path.getsize(self.file("parameters.safetensors")) - 5)
        return "parameters.safetensors is cut short"

    def flip(self):
        with open(self.file("outer.safetensors"), "r+b") as file:
            file.seek(-7, os.SEEK_END)
            byte = file.read(1)[0]
            file.seek(-7, os.SEEK_END)
            file.write(bytes([byte ^ 1]))
        return "outer.safetensors is damaged"

    def lose_manifest(self):
        os.remove(self.file("manifest.json"))
        return "manifest.json"

    def take_from_another_model(self):
        other = self.path("other")
        self.run_tessera("debug", self.recipe, "--out", other, "--quiet", "--set", "model.width=64", *HORIZON)
        shutil.rmtree(self.file(""))
        shutil.copytree(os.path.join(other, "checkpoints", "00000006"), self.file(""))
        return "another model"

    def check(self, damage):
        words = damage()
        for command in (["eval"], ["generate", "--tokens", "2"]):
            done = self.run_tessera(command[0], self.run_folder, *command[1:], code=STORAGE)
            self.assertIn(words, done.stderr)
            self.assertIn("--round 4", done.stderr, "the way out: an older checkpoint")
        self.run_tessera("eval", self.run_folder, "--round", "4")
        # All but the checkpoints is lost: the damaged one is passed over and said to be, the older one carries the run.
        for name in os.listdir(os.path.join(self.run_folder, "log")):
            if name.startswith("state-"):
                os.remove(os.path.join(self.run_folder, "log", name))
        shutil.rmtree(os.path.join(self.run_folder, "slots"))
        more = ["--rounds", "8", *HORIZON]
        self.run_tessera("debug", self.recipe, "--out", self.run_folder, "--quiet", "--resume", *more)
        self.assertEqual(self.hashes(self.run_folder), self.reference(*more))
        self.assertIn("skipped a checkpoint", self.logs(self.run_folder))
        self.assertIn("going back to version 4", self.logs(self.run_folder))

    def test_a_checkpoint_cut_short_is_named_and_an_older_one_carries_the_run(self):
        self.check(self.cut)

    def test_a_checkpoint_with_a_flipped_byte_is_named_and_an_older_one_carries_the_run(self):
        self.check(self.flip)

    def test_a_checkpoint_without_manifest_is_named_and_an_older_one_carries_the_run(self):
        self.check(self.lose_manifest)

    def test_a_checkpoint_of_another_model_is_named_and_an_older_one_carries_the_run(self):
        self.check(self.take_from_another_model)


class DiskFull(RunTest):
    """A small file system of memory in a mount namespace of its own, seen from here through /proc/PID/root."""

    def setUp(self):
        super().setUp()
        self.disk = self.path("disk")
        os.mkdir(self.disk)
        self.holder = subprocess.Popen(["unshare", "-m", "sh", "-c", "echo ready; exec sleep 300"], stdout=subprocess.PIPE, text=True)
        self.started.append(self.holder)
        if os.geteuid() != 0 or self.holder.stdout.readline() != "ready\n":
            self.skipTest("a file system of one's own needs root (unshare -m)")
        self.inside("mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", self.disk)
        self.enter = ["nsenter", "-t", str(self.holder.pid), "-m"]
        self.run_inside = os.path.join(self.disk, "run")
        self.run_outside = f"/proc/{self.holder.pid}/root{self.run_inside}"

    def inside(self, *command):
        return subprocess.run(["nsenter", "-t", str(self.holder.pid), "-m", *command], check=True, capture_output=True, text=True).stdout

    def tessera(self, *arguments, code=0):
        done = subprocess.run([*self.enter, TESSERA, *arguments], capture_output=True, text=True, timeout=100)
        self.assertEqual(done.returncode, code, f"{done.stdout[-1000:]}\n{done.stderr[-2000:]}\n{self.logs(self.run_outside)}")
        return done

    def test_a_checkpoint_that_does_not_fit_leaves_the_one_before_and_training_goes_on(self):
        self.tessera("debug", self.recipe, "--out", self.run_inside, "--quiet", "--rounds", "2", *HORIZON)
        folder = os.path.join(self.run_inside, "checkpoints")
        self.inside("sh", "-c", f"mv {folder} {folder}.old && mkdir {folder} && mount -t tmpfs -o size=2m tmpfs {folder} && mv {folder}.old/* {folder}")
        more = ["--rounds", "6", *HORIZON]
        done = self.tessera("train", self.recipe, "--out", self.run_inside, "--quiet", "--resume", *more)
        reference = self.reference(*more)
        self.assertEqual(self.hashes(self.run_outside), reference)
        self.assertIn("no checkpoint of version 4", self.logs(self.run_outside))
        self.assertIn("disk full", self.logs(self.run_outside))
        self.assertEqual(os.listdir(os.path.join(self.run_outside, "checkpoints")), ["00000002"], "no half of a checkpoint")
        self.assertIn("round 2", self.tessera("eval", self.run_inside).stdout)
        self.inside("mount", "-o", "remount,size=30m", folder)
        more = ["--rounds", "8", *HORIZON]
        self.tessera("train", self.recipe, "--out", self.run_inside, "--quiet", "--resume", *more)
        self.assertEqual(self.hashes(self.run_outside), self.reference_of(more))
        self.assertIn("round 8", self.tessera("eval", self.run_inside).stdout)

    def reference_of(self, arguments):
        run = self.path("second-reference")
        self.run_tessera("debug", self.recipe, "--out", run, "--quiet", *arguments)
        return self.hashes(run)

    def test_a_full_disk_ends_with_a_storage_error_and_resume_finishes_the_same(self):
        rounds = ["--rounds", "160"]  # the disk must be full before the run is over
        train = subprocess.Popen([*self.enter, TESSERA, "train", self.recipe, "--out", self.run_inside, "--quiet", *rounds],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.started.append(train)
        self.await_rounds(self.run_outside, 5, train)
        filler = os.path.join(self.disk, "filler")
        subprocess.run([*self.enter, "dd", "if=/dev/zero", f"of={filler}", "bs=4k"], capture_output=True)
        _, err = self.finish(train, self.run_outside, code=STORAGE)
        self.assertIn("disk full", err)
        self.tessera("eval", self.run_inside)
        self.inside("rm", filler)
        self.tessera("train", self.recipe, "--out", self.run_inside, "--quiet", "--resume", *rounds)
        self.assertEqual(self.hashes(self.run_outside), self.reference(*rounds))


class Strangers(RunTest):
    """A long run that somebody disturbs: it goes on, and its hashes are those of an undisturbed one."""

    def disturb(self, disturbance):
        run = self.path("run")
        train = self.start("train", self.recipe, "--out", run, "--quiet", "--rounds", "100000", *HORIZON)
        self.await_rounds(run, 2, train)
        endpoints = self.endpoints(run)
        disturbance(run)
        self.assertEqual(self.endpoints(run), endpoints)
        self.await_rounds(run, len(self.rows(run)) + 3, train)
        self.kill(train.pid, signal.SIGINT)
        self.finish(train, run, code=RESUMABLE)
        self.assertNotIn("starting it again", self.logs(run))
        hashes, reference = self.hashes(run), self.reference("--rounds", "40", *HORIZON)
        self.assertEqual(hashes[:40], reference[:len(hashes)])

    def test_a_second_coordinator_is_fenced_and_told_who_holds_the_run(self):
        def disturbance(run):
            holder = self.role_pids(run, "coordinator")[0]
            for role in ("coordinator", "train"):
                done = self.run_tessera(role, self.recipe, "--out", run, "--quiet", "--resume", "--rounds", "100000", *HORIZON, code=FENCED)
                self.assertIn(f"in use by pid {holder}", done.stderr)

        self.disturb(disturbance)

    def test_a_worker_of_another_build_is_refused(self):
        build = re.search(r"build ([0-9a-f]{16})", self.run_tessera("--version").stdout)[1].encode()
        other = self.path("tessera")
        with open(TESSERA, "rb") as program, open(other, "wb") as out:
            program_bytes = program.read()
            self.assertGreater(program_bytes.count(build), 0)
            out.write(program_bytes.replace(build, build[::-1]))
        os.chmod(other, 0o755)

        def disturbance(run):
            done = subprocess.run([other, "worker", "--connect", run], capture_output=True, text=True, timeout=20)
            self.assertEqual(done.returncode, REFUSED, done.stderr)
            self.assertIn(f"this worker is build '{build[::-1].decode()}', the run is build '{build.decode()}'", done.stderr)

        self.disturb(disturbance)

    def test_a_worker_with_other_data_is_refused(self):
        other = self.path("other-data")
        shutil.copytree(self.data, other, ignore=shutil.ignore_patterns(".*"))
        with open(os.path.join(other, "train.txt"), "a") as out:
            out.write("one more line.\n")

        def disturbance(run):
            done = subprocess.run([TESSERA, "worker", "--connect", run, "--data", other], capture_output=True, text=True, timeout=20)
            self.assertEqual(done.returncode, REFUSED, done.stderr)
            self.assertIn("its data are not the run's", done.stderr)

        self.disturb(disturbance)

    def test_a_megabyte_of_random_bytes_on_each_port_changes_nothing(self):
        noise = random.Random(5).randbytes(1 << 20)
        # As a peer of ZeroMQ would open (greeting, READY), so that the noise comes through to what decodes messages.
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + bytes(32)

        def ready(name):
            properties = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x10" + name
            return greeting + b"\x04" + bytes([len(properties)]) + properties

        frames = b"\x02" + len(noise).to_bytes(8, "big") + noise
        short = b"".join(b"\x00" + bytes([len(part)]) + part for part in (noise[i:i + 200] for i in range(0, 20000, 200)))

        def dropped(run):
            return sum(float(line.split()[-1]) for line in self.page(run).splitlines() if line.startswith("tessera_dropped_messages_total{"))

        def disturbance(run):
            self.assertEqual(dropped(run), 0)
            for name in ("control", "bulk", "metrics"):
                host, port = re.search(r"//([0-9.]+):(\d+)", self.endpoints(run)[name]).groups()
                for sent in (noise, ready(b"a stranger of 16") + short, ready(b"another stranger") + frames):
                    stranger = socket.create_connection((host, int(port)), timeout=5)
                    self.addCleanup(stranger.close)
                    try:
                        stranger.sendall(sent)
                    except OSError:
                        pass  # shown the door
            end = time.monotonic() + 10
            while dropped(run) == 0 and time.monotonic() < end:
                time.sleep(0.1)
            self.assertGreater(dropped(run), 0, "dropped and counted")

        self.disturb(disturbance)


if __name__ == "__main__":
    unittest.main()
