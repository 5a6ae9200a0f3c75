"""What the system tests share: a tiny corpus, a tiny recipe, the binary, and eyes on a run directory.

The binary is $TESSERA (ctest sets it). Everything lies in a scratch folder that is removed afterwards.
"""
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.request

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TESSERA = os.environ.get("TESSERA", os.path.join(SOURCE, "build/ci/tessera"))

RECIPE = """
seed = 7
slots = 4
workers = 2
rounds = 6
batch = 2
[model]
family = "gpt"
width = 32
layers = 2
heads = 2
context = 32
[partial]
cut = "mlp"
slices = 2
[sync]
steps = 4
[inner]
name = "adamw"
lr = 0.003
[eval]
every = 2
batches = 2
[checkpoint]
every = 2
keep = 2
[net]
lease_seconds = 2.0
[data]
path = "{data}"
tokenizer = "bytes"
"""


def write_corpus(folder, words=4000):
    """Generated text: sentences of a tiny grammar, seeded."""
    rng = random.Random(11)
    os.makedirs(folder, exist_ok=True)
    subjects, verbs, things = ["the cat", "a dog", "my aunt", "the sea"], ["sees", "likes", "paints"], ["a hill", "the moon", "tea"]
    for name, count in (("train.txt", words), ("held_out.txt", words // 8)):
        with open(os.path.join(folder, name), "w") as out:
            for _ in range(count // 5):
                out.write(f"{rng.choice(subjects)} {rng.choice(verbs)} {rng.choice(things)}.\n")


class RunTest(unittest.TestCase):
    """A scratch folder with corpus and recipe; helpers that run tessera in it."""

    def setUp(self):
        self.scratch = tempfile.mkdtemp(prefix="tessera-test-")
        self.addCleanup(shutil.rmtree, self.scratch, ignore_errors=True)
        self.data = self.path("data")
        write_corpus(self.data)
        self.recipe = self.path("recipe.toml")
        with open(self.recipe, "w") as out:
            out.write(RECIPE.format(data=self.data))
        self.started = []
        self.addCleanup(self.remove_shared_memory)
        self.addCleanup(self.kill_started)

    def path(self, *names):
        return os.path.join(self.scratch, *names)

    def remove_shared_memory(self):
        """Of runs whose launcher was killed and that were not resumed."""
        for folder, _, files in os.walk(self.scratch):
            if "endpoints.json" in files:
                shared = self.endpoints(folder).get("shared_folder", "")
                if shared.startswith("/dev/shm/tessera-"):
                    shutil.rmtree(shared, ignore_errors=True)

    def kill_started(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()

    def start(self, *arguments, **options):
        process = subprocess.Popen([TESSERA, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", **options)
        self.started.append(process)
        return process

    def run_tessera(self, *arguments, code=0, timeout=100):
        done = subprocess.run([TESSERA, *arguments], capture_output=True, text=True, errors="replace", timeout=timeout)
        self.assertEqual(done.returncode, code, f"tessera {' '.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
        return done

    def rows(self, run):
        try:
            with open(os.path.join(run, "metrics.jsonl")) as lines:
                return [json.loads(line) for line in lines if line.endswith("\n")]
        except FileNotFoundError:
            return []

    def endpoints(self, run):
        with open(os.path.join(run, "endpoints.json")) as file:
            return json.load(file)

    def page(self, run):
        """The run's Prometheus page."""
        with urllib.request.urlopen(self.endpoints(run)["metrics"], timeout=5) as page:
            return page.read().decode()

    def metric(self, page, name):
        """Value of one sample of the page, name with labels."""
        for line in page.splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
        self.fail(f"the page has no {name}")

    def hashes(self, run):
        return [(row["round"], row["state_hash"]) for row in self.rows(run)]

    def logs(self, run):
        text = ""
        folder = os.path.join(run, "text")
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            with open(os.path.join(folder, name)) as log:
                text += f"--- {name}\n{log.read()[-3000:]}\n"
        return text

    def reference(self, *overrides, run="reference"):
        """Hashes of an undisturbed run in debug mode."""
        run = self.path(run)
        self.run_tessera("debug", self.recipe, "--out", run, "--quiet", *overrides)
        hashes = self.hashes(run)
        self.assertEqual(len(hashes), len(set(hash for _, hash in hashes)), "every round changes the state")
        return hashes

    def await_rounds(self, run, count, process, at_most=60):
        """Waits until a run has so many rows while its process lives."""
        end = time.monotonic() + at_most
        while len(self.rows(run)) < count:
            self.assertIsNone(process.poll(), f"ended early:\n{self.logs(run)}")
            self.assertLess(time.monotonic(), end, f"no {count} rounds in {at_most} s:\n{self.logs(run)}")
            time.sleep(0.01)

    def finish(self, process, run, code=0, timeout=90):
        out, err = process.communicate(timeout=timeout)
        self.assertEqual(process.returncode, code, f"{out[-1500:]}\n{err[-1500:]}\n{self.logs(run)}")
        return out, err

    def processes(self, run):
        """(pid, command line) of all tessera processes that name this run."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().decode().split("\0")
            except OSError:
                continue
            if words and words[0].endswith("tessera") and any(run in word for word in words):
                found.append((int(pid), words))
        return found

    def role_pids(self, run, role):
        return [pid for pid, words in self.processes(run) if len(words) > 1 and words[1] == role]

    def kill(self, pid, number=signal.SIGKILL):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            self.fail("the process to be killed was gone already")
