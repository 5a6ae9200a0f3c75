"""Methods as a user runs them: all modes alike, killed roles change no bit, and a run can be resumed."""
import unittest

from harness import RunTest

SLICES = ["outer.name=streaming", "outer.fragments=2", "outer.pattern=slices", "partial.owner_view=fast", "outer.cut_lr=0.3"]
STREAMING = ["outer.name=streaming", "outer.fragments=2", "outer.tau=1", "outer.alpha=0.5"]


def flags(settings):
    return [flag for setting in settings for flag in ("--set", setting)]


class Methods(RunTest):
    def rows_of(self, run):
        return [(row["round"], row.get("fragment"), row["state_hash"], row.get("eval_loss")) for row in self.rows(run)]

    def alike(self, *settings, number=""):
        """Debug and train on three workers give the same rows; returns them."""
        settings = flags(settings)
        run, debug = self.path("train" + number), self.path("debug" + number)
        self.run_tessera("debug", self.recipe, "--out", debug, "--quiet", *settings)
        self.run_tessera("train", self.recipe, "--out", run, "--quiet", "--workers", "3", *settings)
        self.assertEqual(self.rows_of(run), self.rows_of(debug))
        return self.rows(run)

    def test_streaming_trains_in_both_modes_alike(self):
        rows = self.alike(*STREAMING, "sync.steps=8")
        self.assertEqual([(row["round"], row["fragment"]) for row in rows], [(r, f) for r in range(1, 7) for f in (0, 1)])

    def test_staggered_slices_train_in_both_modes_alike(self):
        rows = self.alike(*SLICES, "outer.tau=1", "sync.steps=8")
        self.assertEqual([(row["round"], row["fragment"]) for row in rows], [(r, f) for r in range(1, 7) for f in (0, 1)])

    def test_eager_and_local_sgd_and_adam_train_in_both_modes_alike(self):
        eager = ["outer.name=eager", "outer.lr=0.5", "outer.cut_lr=0.3"]
        for number, settings in enumerate((eager, ["outer.name=local_sgd"], ["outer.rule=adam", "outer.lr=0.01", "outer.cut_lr=0.01"])):
            with self.subTest(settings):
                self.alike(*settings, number=str(number))

    def test_streaming_survives_killed_roles_and_a_resume(self):
        self.survives(STREAMING)

    def test_staggered_slices_survive_killed_roles_and_a_resume(self):
        self.survives(SLICES + ["codec.down=int8", "codec.down_feedback=1"])

    def survives(self, method):
        settings = flags(method + ["sync.steps=8", "schedule.horizon=160"])
        reference = self.reference("--rounds", "20", *settings)
        run = self.path("run")
        train = self.start("train", self.recipe, "--out", run, "--quiet", "--rounds", "14", *settings)
        for after, role in ((3, "worker"), (8, "coordinator"), (14, "worker")):
            self.await_rounds(run, after, train)
            self.kill(self.role_pids(run, role)[0])
        self.finish(train, run)
        self.run_tessera("debug", self.recipe, "--out", run, "--quiet", "--resume", "--rounds", "20", *settings)
        self.assertEqual(self.hashes(run), reference)

    def test_what_streaming_cannot_do_is_refused_with_the_reason(self):
        for settings, reason in ((["outer.tau=9"], "outer.tau = 9 must be less"),
                                 (["outer.fragments=9"], "more than sync.steps = 8"),
                                 (["outer.pattern=slices", "partial.slices=4", "outer.fragments=3"], "does not divide partial.slices = 4"),
                                 (["outer.pattern=slices", "partial.rotate_every=1"], "give its slice away"),
                                 (["outer.pattern=rows"], "\"slices\" follows partial.cut"),
                                 (["outer.pattern=slices", "partial.cut=none", "partial.slices=1"], "has none to follow"),
                                 (["outer.alpha=0.5", "partial.rotate_every=1"], "does not go with partial.rotate_every")):
            refused = self.run_tessera("train", self.recipe, "--out", self.path("run"), code=2,
                                       *flags(["outer.name=streaming", "sync.steps=8"] + settings))
            self.assertIn(reason, refused.stderr)

    def test_what_eager_and_local_sgd_cannot_do_is_refused_with_the_reason(self):
        eager = ["outer.name=eager", "outer.lr=0.5", "outer.cut_lr=0.3"]
        for settings, reason in ((eager + ["partial.average=slots"], "share of a mean"),
                                 (eager + ["partial.replicas=2"], "share of a mean"),
                                 (["outer.name=local_sgd", "outer.rule=adam"], "takes the mean as it is"),
                                 (["outer.name=streaming", "outer.fragments=1000000000000"], "outer.fragments")):
            refused = self.run_tessera("plan", self.recipe, code=2, *flags(settings))
            self.assertIn(reason, refused.stderr)


if __name__ == "__main__":
    unittest.main()
