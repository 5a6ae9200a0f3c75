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

    def timed(self, name, namespaces, *link, settings=()):
        """A round's seconds of a coordinator in one network namespace and a worker in the other."""
        run = self.path(name)
        inside = [["ip", "netns", "exec", namespace, TESSERA] for namespace in namespaces]
        coordinator = subprocess.Popen([*inside[0], "coordinator", self.recipe, "--out", run, "--listen", "10.87.0.1",
                                        "--port", "4700", *LARGE, *settings], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
        worker = subprocess.Popen([*inside[1], "worker", "--connect", "10.87.0.1:4700", "--data", self.data, "--quiet",
                                   *link], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.started += [coordinator, worker]
        self.assertEqual(coordinator.wait(timeout=90), 0, self.logs(run))
        worker.wait(timeout=20)
        return self.run_seconds(run)

    def namespaces(self):
        """Two network namespaces with a link between them, tile0 at either end: 10.87.0.1 and 10.87.0.2."""
        path = os.environ["PATH"] + ":/usr/sbin"
        self.ip, self.tc = shutil.which("ip", path=path), shutil.which("tc", path=path)
        if os.geteuid() != 0 or not self.ip or not self.tc:
            self.skipTest("needs root, ip and tc for network namespaces")
        names = [f"tessera-{os.getpid()}-{side}" for side in "ab"]
        for name in names:
            if subprocess.run([self.ip, "netns", "add", name], capture_output=True).returncode != 0:
                self.skipTest("may not make network namespaces")
            self.addCleanup(subprocess.run, [self.ip, "netns", "del", name], capture_output=True)
        made = self.do(names[0], self.ip, "link", "add", "tile0", "type", "veth", "peer", "name", "tile0", "netns", names[1])
        if made.returncode != 0:
            self.skipTest("no veth: " + made.stderr)
        for name, address in zip(names, ("10.87.0.1/24", "10.87.0.2/24")):
            for arguments in (["addr", "add", address, "dev", "tile0"], ["link", "set", "tile0", "up"],
                              ["link", "set", "lo", "up"]):
                self.assertEqual(self.do(name, self.ip, *arguments).returncode, 0)
        return names

    def do(self, namespace, program, *arguments):
        return subprocess.run([self.ip, "netns", "exec", namespace, program, *arguments], capture_output=True, text=True)

    def shape(self, names, mbits, burst="64kb", latency="300ms"):
        """Each end sends no faster."""
        for name in names:
            shaped = self.do(name, self.tc, "qdisc", "replace", "dev", "tile0", "root", "tbf", "rate", f"{mbits}mbit",
                             "burst", burst, "latency", latency)
            if shaped.returncode != 0:
                self.skipTest("no tbf: " + shaped.stderr)

    def test_it_is_as_slow_as_a_real_one_between_network_namespaces(self):
        names = self.namespaces()
        fast = self.timed("fast", names)
        imitated = self.timed("imitated", names, "--link-mbits", str(MBITS))
        self.shape(names, MBITS)
        real = self.timed("real", names)
        print(f"a round: {fast:.2f} s unlimited, {imitated:.2f} s imitated, {real:.2f} s real")
        row = self.rows(self.path("fast"))[-1]
        self.assertGreater(imitated, 8 * (row["bytes_up"] + row["bytes_down"]) / (MBITS * 1e6))
        self.assertLess(abs(imitated - real), 0.15 * real, f"imitated {imitated} s, real {real} s, unlimited {fast} s")

    def test_both_directions_of_a_real_link_are_used_at_once(self):
        names = self.namespaces()
        bench = os.environ.get("LINK_BENCH", os.path.join(os.path.dirname(TESSERA), "tests/bench/link_bench"))
        for mbits, megabytes, burst in ((1000, 200, "256kb"), (200, 50, "256kb"), (20, 12, "64kb"), (5, 4, "64kb")):
            self.shape(names, mbits, burst=burst, latency="50ms")
            ends = [subprocess.Popen(["ip", "netns", "exec", name, bench, role, "10.87.0.1", "4800", str(megabytes)],
                                     stdout=subprocess.PIPE, text=True) for name, role in zip(names, ("serve", "connect"))]
            self.started += ends
            used = [8e6 * megabytes / float(end.communicate(timeout=60)[0]) / (mbits * 1e6) for end in ends]
            print(f"{mbits} Mbit/s: {100 * used[0]:.1f} % and {100 * used[1]:.1f} % of it carry the blobs")
            # The goal is 92 %; a loaded machine gets some grace, but less than where requests waited behind chunks (45 %),
            # or chunks were asked for twice because one alone took as long as a request may (60 % of 5 Mbit/s).
            self.assertGreater(min(used), 0.75)

    def counted(self, namespace):
        """Bytes received and sent at the coordinator's end as the kernel counts them, less what heads its packets."""
        def read(name):
            return int(self.do(namespace, "cat", f"/sys/class/net/tile0/statistics/{name}").stdout)

        heads = 14 + 20 + 32  # Ethernet, IPv4, TCP with time stamps
        return [read(f"{way}_bytes") - heads * read(f"{way}_packets") for way in ("rx", "tx")]

    def sent_again(self, namespaces):
        """Segments that TCP has sent a second time, at either end: on a loaded machine it takes a late answer for a lost one."""
        again = 0
        for namespace in namespaces:
            heads, values = (line.split() for line in self.do(namespace, "cat", "/proc/net/snmp").stdout.splitlines()
                             if line.startswith("Tcp:"))
            again += int(values[heads.index("RetransSegs")])
        return again

    def test_bytes_are_those_that_the_kernel_counts(self):
        names = self.namespaces()
        segment = 1460  # bytes, the most that one carries
        for label, settings in (("fp32", []), ("int8 up, bf16 down", ["codec.up=int8", "codec.down=bf16"]),
                                ("streaming", ["outer.name=streaming", "outer.fragments=2", "sync.steps=2"]),
                                ("data parallel", ["outer.name=data_parallel"])):
            overrides = [part for setting in settings for part in ("--set", setting)]
            counted, reported, took, again = [], [], [], self.sent_again(names)
            for rounds in (3, 11):  # what runs of both lengths have in common is not of interest
                before, run = self.counted(names[0]), f"{label} {rounds}"
                self.timed(run, names, settings=[*overrides, "--rounds", str(rounds)])
                counted.append([after - b for after, b in zip(self.counted(names[0]), before)])
                rows = self.rows(self.path(run))
                reported.append([sum(row[way] for row in rows) for way in ("bytes_up", "bytes_down")])
                took.append(len(rows))
            again = self.sent_again(names) - again
            for way in (0, 1):
                measured, said = counted[1][way] - counted[0][way], reported[1][way] - reported[0][way]
                merges = took[1] - took[0]
                print(f"{label}, {('up', 'down')[way]}: {said} bytes reported, the kernel counts {measured - said} more "
                      f"({100 * (measured / said - 1):.3f} %), {(measured - said) / merges:.0f} a merge, {again} segments again")
                # Messages, requests and heads of chunks: at most 4 KiB a merge.
                self.assertLess(abs(measured - said), 0.001 * said + 4096 * merges + segment * again)

    def test_what_tau_steps_hide_is_not_waited_for(self):
        settings = [*LARGE, "--set", "net.bandwidth=[200]", "--set", "outer.name=streaming", "--set", "outer.fragments=1",
                    "--set", "sync.steps=24", "--set", "batch=16", "--set", "rounds=8"]
        whole = None
        for tau in (0, 3, 8, 20):
            run = self.path(f"tau {tau}")
            self.run_tessera("train", self.recipe, "--out", run, "--quiet", *settings, "--set", f"outer.tau={tau}")
            rows = self.rows(run)[2:]
            stall = statistics.median(row["seconds"]["wait"] for row in rows)
            step = statistics.median(row["seconds"]["step_by_slot"][0] for row in rows)
            whole = stall if whole is None else whole
            expected = max(0, whole - tau * step)
            print(f"tau {tau}: waited {stall:.3f} s, expected {expected:.3f} s (T_sync {whole:.3f} s, a step {step:.4f} s), "
                  f"off by {100 * (stall - expected) / whole:.1f} % of T_sync")
            if tau == 0:
                self.assertGreater(whole, 5 * step)
            # The goal is 10 % of T_sync; steps and merges of a loaded machine take now longer, now shorter.
            self.assertLess(abs(stall - expected), 0.5 * whole)


if __name__ == "__main__":
    unittest.main()
