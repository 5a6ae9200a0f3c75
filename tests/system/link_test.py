"""The imitated slow link (net.bandwidth, net.latency): changes no bit, and is as slow as a real one."""
import os
import shutil
import statistics
import subprocess
import unittest

from harness import RunTest, TESSERA

# 0.8 M parameters: 3.2 MB each way per round.
LARGE = ["--set", "model.width=128", "--set", "model.layers=4", "--set", "model.heads=4", "--set", "eval.every=0",
         "--set", "checkpoint.every=1000", "--set", "partial.cut=none", "--set", "partial.slices=1", "--set", "slots=1",
         "--set", "workers=1", "--set", "sync.steps=1", "--set", "rounds=6", "--set", "net.lease_seconds=20"]
MBITS = 20


class Link(RunTest):
    def run_seconds(self, run):
        """Of a round, the first two left out: connections are made, files are read."""
        return statistics.median(row["seconds"]["round"] for row in self.rows(run)[2:])

    def test_a_slow_link_changes_no_bit_and_takes_its_time(self):
        run = self.path("slow")
        self.run_tessera("train", self.recipe, "--out", run, "--quiet", "--set", "net.bandwidth=[20,5]",
                         "--set", "net.latency=[10]")
        self.assertEqual(self.hashes(run), self.reference())
        up, down = self.rows(run)[-1]["bytes_up"], self.rows(run)[-1]["bytes_down"]
        self.assertGreater(up, 0)
        self.assertGreater(down, 0)
        # The slower worker's half of the uploads and one version, and no less than four latencies.
        self.assertGreater(self.run_seconds(run), 8 * (up / 2 + down / 2) / 5e6 * 0.5 + 0.04)

    def test_nor_does_it_in_other_methods(self):
        for name, settings in (("sparseloco", []), ("des_loc", []), ("streaming", ["outer.tau=1"]),
                               ("sparta", ["sync.steps=1", "outer.share=0.1", "rounds=8"])):
            with self.subTest(name):
                settings = [flag for setting in ["outer.name=" + name, *settings] for flag in ("--set", setting)]
                run = self.path(name)
                self.run_tessera("train", self.recipe, "--out", run, "--quiet", "--set", "net.bandwidth=[20,5]",
                                 "--set", "net.latency=[10]", *settings)
                self.assertEqual(self.hashes(run), self.reference(*settings, run=name + "-reference"))

    def timed(self, name, namespaces, *link):
        """A round's seconds of a coordinator in one network namespace and a worker in the other."""
        run = self.path(name)
        inside = [["ip", "netns", "exec", namespace, TESSERA] for namespace in namespaces]
        coordinator = subprocess.Popen([*inside[0], "coordinator", self.recipe, "--out", run, "--listen", "10.87.0.1",
                                        "--port", "4700", *LARGE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        worker = subprocess.Popen([*inside[1], "worker", "--connect", "10.87.0.1:4700", "--data", self.data, "--quiet",
                                   *link], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.started += [coordinator, worker]
        self.assertEqual(coordinator.wait(timeout=90), 0, self.logs(run))
        worker.wait(timeout=20)
        return self.run_seconds(run)

    def test_it_is_as_slow_as_a_real_one_between_network_namespaces(self):
        path = os.environ["PATH"] + ":/usr/sbin"
        ip, tc = shutil.which("ip", path=path), shutil.which("tc", path=path)
        if os.geteuid() != 0 or not ip or not tc:
            self.skipTest("needs root, ip and tc for network namespaces")
        names = [f"tessera-{os.getpid()}-{side}" for side in "ab"]
        for name in names:
            if subprocess.run([ip, "netns", "add", name], capture_output=True).returncode != 0:
                self.skipTest("may not make network namespaces")
            self.addCleanup(subprocess.run, [ip, "netns", "del", name], capture_output=True)

        def do(namespace, program, *arguments):
            return subprocess.run([ip, "netns", "exec", namespace, program, *arguments], capture_output=True, text=True)

        made = do(names[0], ip, "link", "add", "tile0", "type", "veth", "peer", "name", "tile0", "netns", names[1])
        if made.returncode != 0:
            self.skipTest("no veth: " + made.stderr)
        for name, address in zip(names, ("10.87.0.1/24", "10.87.0.2/24")):
            for arguments in (["addr", "add", address, "dev", "tile0"], ["link", "set", "tile0", "up"],
                              ["link", "set", "lo", "up"]):
                self.assertEqual(do(name, ip, *arguments).returncode, 0)
        fast = self.timed("fast", names)
        imitated = self.timed("imitated", names, "--link-mbits", str(MBITS))
        for name in names:
            shaped = do(name, tc, "qdisc", "add", "dev", "tile0", "root", "tbf", "rate", f"{MBITS}mbit", "burst", "64kb",
                        "latency", "300ms")
            if shaped.returncode != 0:
                self.skipTest("no tbf: " + shaped.stderr)
        real = self.timed("real", names)
        print(f"a round: {fast:.2f} s unlimited, {imitated:.2f} s imitated, {real:.2f} s real")
        row = self.rows(self.path("fast"))[-1]
        self.assertGreater(imitated, 8 * (row["bytes_up"] + row["bytes_down"]) / (MBITS * 1e6))
        self.assertLess(abs(imitated - real), 0.15 * real, f"imitated {imitated} s, real {real} s, unlimited {fast} s")


if __name__ == "__main__":
    unittest.main()
