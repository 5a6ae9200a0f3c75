"""What a merge costs with many workers: each part of its time grows at most as their number does."""
import os
import random
import unittest

from harness import RunTest

LIGHT = ("batch=1", "model.width=64", "model.layers=5", "model.context=4", "sync.steps=1", "partial.cut=none", "partial.slices=1", "eval.every=0",
         "checkpoint.every=1000", "inner.name=sgd", "durability=process")
PARTS = ("validate", "stage", "commit_save", "commit_encode", "commit_hash")


class MergeParts(RunTest):
    def corpus_without_repeats(self):
        """Letters at random: no two batches, and so no two contributions, are alike."""
        letters = random.Random(3)
        for name, count in (("train.txt", 100_000), ("held_out.txt", 2000)):
            with open(os.path.join(self.data, name), "w") as out:
                out.write("".join(letters.choice("abcdefghij klmnopqrst uvwxyz.\n") for _ in range(count)))

    def least_seconds(self, workers):
        """By part: the least of several merges, in one process, where parts do not wait for others' cores."""
        run = self.path(f"run-{workers}")
        settings = (*LIGHT, f"slots={workers}", f"workers={workers}", "rounds=10")
        self.run_tessera("debug", self.recipe, "--out", run, "--quiet", *(word for setting in settings for word in ("--set", setting)))
        rows = self.rows(run)[2:]
        least = {name: min(row["seconds"]["parts"][name] for row in rows) for name in PARTS}
        return {**least, "merge": min(row["seconds"]["merge"] for row in rows)}

    def test_none_grows_faster_than_the_number_of_workers(self):
        self.corpus_without_repeats()
        few, many = 2, 32
        of_few, of_many = self.least_seconds(few), self.least_seconds(many)
        for name, seconds in of_many.items():
            print(f"{name}: {1e3 * of_few[name]:.2f} ms with {few} workers, {1e3 * seconds:.2f} ms with {many}")
        for name, seconds in of_many.items():
            # Five times the goal, as for all that is timed. What is quadratic takes 256 times as long.
            self.assertLess(seconds, 5 * many / few * max(of_few[name], 5e-5), name)


if __name__ == "__main__":
    unittest.main()
