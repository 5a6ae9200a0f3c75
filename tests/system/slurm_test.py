"""A real Slurm of four nodes on this machine (launch/slurm_playground.sh) starts the same job."""
import os
import shutil
import subprocess
import unittest

from harness import RunTest, SOURCE, TESSERA

PLAYGROUND = os.path.join(SOURCE, "launch", "slurm_playground.sh")


class Slurm(RunTest):
    def playground(self, *arguments, timeout=60):
        return subprocess.run([PLAYGROUND, *arguments], capture_output=True, text=True, errors="replace", timeout=timeout, env=self.environment)

    def setUp(self):
        super().setUp()
        path = os.environ["PATH"] + ":/usr/sbin"
        absent = [name for name in ("munged", "slurmctld", "slurmd", "srun") if not shutil.which(name, path=path)]
        if absent:
            self.skipTest(f"{', '.join(absent)} not installed; run: launch/setup.sh slurm")
        # A playground of its own, short for the socket's sake.
        self.environment = {**os.environ, "TESSERA_SLURM": self.scratch.replace("tessera-test-", "tessera-slurm-")}
        self.addCleanup(self.playground, "stop")
        started = self.playground("start")
        self.assertEqual(started.returncode, 0, started.stdout + started.stderr)

    def test_srun_over_four_nodes_gives_the_hashes_of_debug(self):
        run = self.path("run")
        done = self.playground("run", "srun", "-N4", "-n5", "--overcommit", "--kill-on-bad-exit=1", "--time=1",
                               TESSERA, "run", self.recipe, "--out", run, timeout=100)
        self.assertEqual(done.returncode, 0, done.stdout[-2000:] + done.stderr[-2000:] + self.logs(run))
        self.assertEqual(self.hashes(run), self.reference())
        with open(os.path.join(run, "recipe.toml")) as recipe:
            self.assertIn("workers = 4", recipe.read(), "five ranks: a coordinator and four workers")


if __name__ == "__main__":
    unittest.main()
