"""Codecs in whole runs: the same hashes in every mode and after kills, and the bytes that `plan` says."""
import json
import unittest

from harness import RunTest

EXACT = "fp32"
ROUNDING = ["bf16", "fp16", "int8", "int8_sigma", "fp8", "int4", "e3m0", "int2", "topk"]


def both_ways(codec, feedback=0):
    settings = ["--set", f"codec.up={codec}", "--set", f"codec.down={codec}"]
    if feedback:
        settings += ["--set", f"codec.up_feedback={feedback}", "--set", f"codec.down_feedback={feedback}"]
    return settings


class Codecs(RunTest):
    def in_both_modes(self, name, *settings):
        """Rows of `train`, whose hashes are those of `debug`."""
        reference = self.reference(*settings, run=name + "-debug")
        run = self.path(name)
        self.run_tessera("train", self.recipe, "--out", run, "--quiet", *settings)
        self.assertEqual(self.hashes(run), reference, name)
        self.assertNotIn("instead of an update", self.logs(run) + self.logs(self.path(name + "-debug")))
        return self.rows(run)

    def test_every_codec_trains_in_both_modes_alike_with_the_bytes_that_plan_says(self):
        headers = None  # of fp32: others differ by the digits of sizes, and headers are filled up to 64 bytes
        losses = {}
        for codec in [EXACT, *ROUNDING]:
            with self.subTest(codec):
                settings = [*both_ways(codec), "--workers", "4", "--rounds", "2", "--set", "model.width=64"]
                rows = self.in_both_modes(codec, *settings)
                losses[codec] = rows[-1]["eval_loss"]
                plan = json.loads(self.run_tessera("plan", self.recipe, "--json", *settings).stdout)
                over = {way: [row[way] - sum(slot[way] for slot in plan["slots"]) for row in rows] for way in ("bytes_up", "bytes_down")}
                headers = headers or over
                for way, counts in over.items():
                    predicted = sum(slot[way] for slot in plan["slots"])
                    for count, header in zip(counts, headers[way]):
                        self.assertLessEqual(abs(count - header), 0.001 * predicted + 4 * 128, f"{way} of {predicted}")
        self.assertEqual(len({*losses.values()}), len(losses), "no codec is another one")
        self.assertLess(abs(losses["int8"] / losses[EXACT] - 1), 0.003)

    def test_contributions_of_what_rotates_and_of_gradients_go_through_codecs_too(self):
        self.in_both_modes("rotating", *both_ways("int4", 1), "--set", "partial.rotate_every=1", "--set", "partial.rotate_state=hand_over")
        self.in_both_modes("blocks", *both_ways("int2", 1), "--set", "partial.assign=block", "--set", "partial.rotate_every=1")
        self.in_both_modes("parallel", *both_ways("int8", 0.9), "--set", "outer.name=data_parallel", "--set", "sync.steps=1",
                           "--set", "partial.cut=none", "--set", "partial.slices=1")
        self.in_both_modes("fast", "--set", "codec.down=int8", "--set", "partial.owner_view=fast")

    def test_error_feedback_survives_the_death_of_workers_and_coordinator(self):
        settings = ["--rounds", "30", *both_ways("int2", 1)]
        reference = self.reference(*settings)
        without = self.path("without")
        self.run_tessera("debug", self.recipe, "--out", without, "--quiet", "--rounds", "30", *both_ways("int2"))
        self.assertFalse(set(self.hashes(without)) & set(reference))
        run = self.path("run")
        train = self.start("train", self.recipe, "--out", run, "--quiet", *settings)
        for after, role in ((2, "worker"), (6, "coordinator"), (10, "worker"), (14, "coordinator")):
            self.await_rounds(run, after, train)
            self.kill(self.role_pids(run, role)[0])
        self.await_rounds(run, 18, train)
        self.kill(train.pid)
        train.wait()
        self.run_tessera("debug", self.recipe, "--out", run, "--quiet", "--resume", *settings)
        self.assertEqual(self.hashes(run), reference)

    def test_settings_that_do_not_go_together_are_refused_with_a_reason(self):
        for settings, words in ((["codec.up=int8", "partial.owner_view=fast"], "must arrive as they are"),
                                (["codec.up_feedback=1"], "leaves nothing out"),
                                (["codec.down=int8", "codec.block=12"], "multiple of 8")):
            flags = [flag for setting in settings for flag in ("--set", setting)]
            self.assertIn(words, self.run_tessera("plan", self.recipe, *flags, code=2).stderr)


if __name__ == "__main__":
    unittest.main()
