"""device = "cuda" as a user asks for it: the same recipe, on the GPU if there is one."""
import subprocess
import unittest

from harness import TESSERA, RunTest


class Cuda(RunTest):
    def setUp(self):
        super().setUp()
        self.first = subprocess.run([TESSERA, "debug", self.recipe, "--out", self.path("gpu"), "--quiet", "--set", "device=cuda"],
                                    capture_output=True, text=True, timeout=100)

    def test_without_the_plug_in_or_a_gpu_it_says_what_to_do(self):
        if self.first.returncode == 0:
            self.skipTest("there is a GPU")
        self.assertIn(self.first.returncode, (1, 2))
        self.assertRegex(self.first.stderr, "cmake --preset cuda|finds no device|cannot open the device plug-in")

    def test_the_same_recipe_learns_the_same_and_repeats_its_bits(self):
        if self.first.returncode != 0:
            self.skipTest("no GPU: " + self.first.stderr.strip())
        self.run_tessera("debug", self.recipe, "--out", self.path("cpu"), "--quiet")
        self.run_tessera("train", self.recipe, "--out", self.path("again"), "--quiet", "--set", "device=cuda")
        self.assertEqual(self.hashes(self.path("again")), self.hashes(self.path("gpu")))
        for gpu, cpu in zip(self.rows(self.path("gpu")), self.rows(self.path("cpu"))):
            self.assertAlmostEqual(gpu["loss"], cpu["loss"], delta=0.01 * cpu["loss"])

    def test_bf16_kernels_of_the_cpu_are_refused(self):
        refused = self.run_tessera("debug", self.recipe, "--out", self.path("bf16"), "--set", "device=cuda",
                                   "--set", "model.precision=bf16", code=2)
        self.assertRegex(refused.stderr, "does not go with model.precision|needs|has no")


if __name__ == "__main__":
    unittest.main()
