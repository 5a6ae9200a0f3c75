"""The corpus scripts, without a network: the R reader on a tiny data base made here, and what the script says when parts are
missing. Run by ctest; by hand: python3 tests/data/corpora_test.py"""
import gzip
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

CORPORA = pathlib.Path(__file__).resolve().parents[2] / "data" / "corpora"
sys.path.insert(0, str(CORPORA))
sys.dont_write_bytecode = True
import austen_extract  # noqa: E402
import perldoc_extract  # noqa: E402

HEADER = b"X\n" + struct.pack(">iiii", 3, 0x040201, 0x030500, 5) + b"UTF-8"


def chars(text):
    data = text.encode()
    return struct.pack(">ii", 0x40009, len(data)) + data


def strings(texts):
    return struct.pack(">ii", 16, len(texts)) + b"".join(map(chars, texts))


def integers(values):
    return struct.pack(f">ii{len(values)}i", 13, len(values), *values)


def named_list(items, names, first):
    """An R list with names; the symbol "names" is written once and then referred to."""
    symbol = struct.pack(">i", 1) + chars("names") if first else struct.pack(">i", 0x1FF)
    return (struct.pack(">ii", 0x213, len(items)) + b"".join(items) + struct.pack(">i", 0x402) + symbol + strings(names) +
            struct.pack(">i", 0xFE))


def write_package_data(folder, variables):
    """Rdata.rdx and Rdata.rdb as R's lazy-load data base lays them out (generated fixture)."""
    database, places = b"", []
    for lines in variables.values():
        data = HEADER + strings(lines)
        chunk = struct.pack(">I", len(data)) + zlib.compress(data)
        places.append(integers([len(database), len(chunk)]))
        database += chunk
    index = HEADER + named_list([named_list(places, list(variables), True), integers([1])], ["variables", "compressed"], False)
    (folder / "Rdata.rdb").write_bytes(database)
    (folder / "Rdata.rdx").write_bytes(gzip.compress(index))


NOVELS = {name: [title.upper(), "", "CHAPTER I", "", f"The _first_ line of {name},", "and  its second.", "", "",
                 'She paid £5; "why?"'] for name, title, _ in austen_extract.NOVELS}


class Austen(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        self.target = self.folder / "corpus"

    def expect_words(self, count):
        kept = austen_extract.EXPECTED_WORDS
        self.addCleanup(setattr, austen_extract, "EXPECTED_WORDS", kept)
        austen_extract.EXPECTED_WORDS = count

    def test_reads_the_novels_and_holds_persuasion_out(self):
        write_package_data(self.folder, NOVELS)
        self.assertEqual(austen_extract.read_variables(self.folder), NOVELS)
        self.expect_words(sum(len(" ".join(lines).split()) for lines in NOVELS.values()))
        austen_extract.main(self.folder, str(self.target))
        held_out = (self.target / "held_out.txt").read_text()
        self.assertEqual(held_out, 'PERSUASION\n\nCHAPTER I\n\nThe first line of persuasion, and its second.\n\n'
                                   'She paid £5; "why?"\n\n')
        train = (self.target / "train.txt").read_text()
        self.assertEqual([train.count(f"of {name},") for name in NOVELS], [1, 1, 1, 1, 1, 0])
        self.assertIn("public domain", (self.target / "README.md").read_text())

    def test_refuses_a_package_that_lost_text_and_writes_nothing(self):
        write_package_data(self.folder, NOVELS)
        with self.assertRaises(SystemExit) as refused:
            austen_extract.main(self.folder, str(self.target))
        self.assertIn("717,537 are expected", str(refused.exception))
        self.assertFalse(self.target.exists())

    def test_names_what_it_cannot_read(self):
        write_package_data(self.folder, {"emma": ["x"]})
        with self.assertRaises(SystemExit) as refused:
            austen_extract.main(self.folder, str(self.target))
        self.assertIn("lacks sensesensibility", str(refused.exception))
        database = (self.folder / "Rdata.rdb").read_bytes()
        (self.folder / "Rdata.rdb").write_bytes(database[:-4])
        run = subprocess.run([sys.executable, CORPORA / "austen_extract.py", self.folder, self.target], capture_output=True,
                             text=True)
        self.assertEqual(run.returncode, 1)
        self.assertIn(f"cannot read {self.folder}", run.stderr)

    def script(self, apt_get, name="austen"):
        """Runs a corpus script with an apt-get of our own and an empty cache."""
        tools = self.folder / "tools"
        tools.mkdir(exist_ok=True)
        (tools / "apt-get").write_text("#!/bin/sh\n" + apt_get)
        (tools / "apt-get").chmod(0o755)
        environment = dict(os.environ, PATH=f"{tools}:{os.environ['PATH']}", TESSERA_CORPORA=str(self.folder / "cache"))
        return subprocess.run([CORPORA / f"{name}.sh", self.target], capture_output=True, text=True, env=environment)

    def test_says_which_command_helps_when_apt_fails(self):
        for name in ("austen", "perldoc"):
            run = self.script("echo 'E: Unable to locate package'; exit 100", name)
            self.assertEqual(run.returncode, 1)
            self.assertIn(f"{name}.sh: apt-get could not download", run.stderr)
            self.assertIn("Unable to locate package", run.stderr)
            self.assertIn("run: apt-get update", run.stderr)
            self.assertEqual(list((self.folder / "cache").iterdir()), [])

    def test_a_script_without_a_target_shows_its_head(self):
        for name in ("austen", "perldoc"):
            run = subprocess.run([CORPORA / f"{name}.sh"], capture_output=True, text=True)
            self.assertEqual(run.returncode, 2)
            self.assertIn(f"data/corpora/{name}.sh TARGET", run.stderr)
            self.assertTrue(run.stderr.rstrip().endswith("left as it is."), run.stderr)

    def test_leaves_a_complete_target_alone(self):
        self.target.mkdir()
        for name in ("train.txt", "held_out.txt", "README.md"):
            (self.target / name).write_text("kept")
        run = self.script("exit 100")
        self.assertEqual((run.returncode, (self.target / "train.txt").read_text()), (0, "kept"))


POD = """\
=encoding utf8

=head1 NAME
X<operator>

perlx - B<bold I<and>> C<$a-E<gt>b>, C<< $x < $y >>, C<<< <<"A" >>>

=over 4

=item *

See L<perlop/"Quote-Like Operators">, L<the
FAQ|perlfaq> and E<eacute>, E<0x263A>.

=back

    my $x = C<kept>;
	tabbed();

=begin comment

gone

=end comment

=cut
"""


class Perldoc(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder, self.target = pathlib.Path(scratch.name) / "pods", pathlib.Path(scratch.name) / "corpus"
        self.folder.mkdir()
        kept = perldoc_extract.EXPECTED_BYTES
        self.addCleanup(setattr, perldoc_extract, "EXPECTED_BYTES", kept)

    def test_shows_what_codes_show(self):
        self.assertEqual(perldoc_extract.plain_text(POD),
                         'NAME\n\nperlx - bold and $a->b, $x < $y, <<"A"\n\nSee perlop/Quote-Like Operators, the FAQ and '
                         'é, \u263a.\n\n    my $x = C<kept>;\n        tabbed();\n\n')

    def test_holds_pages_out_and_leaves_generated_ones(self):
        names = perldoc_extract.HELD_OUT + ("perlfunc", "perltoc", "perl5100delta", "perlaa")
        for name in names:
            (self.folder / f"{name}.pod").write_text(f"=head1 {name}\n\nText.\n")
        perldoc_extract.EXPECTED_BYTES = sum(len(f"{name}\n\nText.\n\n") for name in names[:-3] + names[-1:])
        perldoc_extract.main(str(self.folder), str(self.target))
        self.assertEqual((self.target / "train.txt").read_text(), "perlaa\n\nText.\n\nperlfunc\n\nText.\n\n")
        self.assertEqual((self.target / "held_out.txt").read_text(),
                         "".join(f"{name}\n\nText.\n\n" for name in perldoc_extract.HELD_OUT))
        self.assertIn("Artistic License", (self.target / "README.md").read_text())

    def test_refuses_a_package_that_lost_text_and_writes_nothing(self):
        for name in perldoc_extract.HELD_OUT:
            (self.folder / f"{name}.pod").write_text("=head1 X\n")
        with self.assertRaises(SystemExit) as refused:
            perldoc_extract.main(str(self.folder), str(self.target))
        self.assertIn("4,925,000 are expected", str(refused.exception))
        (self.folder / "perlop.pod").unlink()
        with self.assertRaises(SystemExit) as refused:
            perldoc_extract.main(str(self.folder), str(self.target))
        self.assertIn("lacks perlop", str(refused.exception))
        self.assertFalse(self.target.exists())


if __name__ == "__main__":
    unittest.main()
