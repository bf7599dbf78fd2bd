"""The package against the real binary and a real server: one short run, read in every way that there is.

Needs VST_BINARY (scripts/test-python.sh sets it).
"""

import contextlib
import csv
import io
import json
import re
import tempfile
import unittest
from pathlib import Path

import vst

NOTEBOOK = Path(__file__).parent.parent / "examples" / "first_run.ipynb"


def run_notebook(path: Path) -> dict[str, object]:
    """Runs its cells as a notebook would, one after the other in one namespace."""
    names: dict[str, object] = {}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), path.name, "exec"), names)
    return names


class TheExampleRun(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.stderr = io.StringIO()
        with contextlib.redirect_stderr(cls.stderr):
            cls.names = run_notebook(NOTEBOOK)
        cls.run_: vst.Run = cls.names["kv"]

    def test_the_run_finished_and_says_what_it_is_worth(self) -> None:
        self.assertEqual(self.run_.verdict["state"], "finished")
        # A busy machine may make a run not valid, by its own slip or its lanes, but by nothing else.
        self.assertLessEqual({reason["rule"] for reason in self.run_.verdict["not_valid"]}, {"slip", "busy_lanes"})
        self.assertEqual(self.run_.valid, not self.run_.verdict["not_valid"])

    def test_a_merged_histogram_equals_the_binary_s_own(self) -> None:
        table = self.run_.query(
            "SELECT hdr_count(hdr_merge(service_hdr)) AS n, hdr_quantile(hdr_merge(service_hdr), 0.99) AS p99 "
            "FROM latency_all WHERE operation = 'get'"
        )
        row = table.to_pylist()[0]
        latency = self.run_.table("latency").to_pylist()
        merged = vst.merge_hdr(row["service_hdr"] for row in latency if row["operation"] == "get")
        self.assertGreater(row["n"], 1000)
        self.assertEqual(merged.get_total_count(), row["n"])
        # Three significant digits: both name the same bucket, one by its top, one by its value.
        self.assertLess(abs(merged.get_value_at_percentile(99.0) - row["p99"]), row["p99"] / 500)

    def test_the_csv_holds_what_the_report_says(self) -> None:
        reported = {
            (phase["name"], operation["operation"]): operation
            for phase in self.run_.summary["phases"]
            for operation in phase["operations"]
        }
        with open(self.names["csv"], newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual(len(rows), len(reported))
        self.assertIn(("read_write", "get"), reported)
        for row in rows:
            operation = reported[row["phase"], row["operation"]]
            self.assertEqual(int(row["ok"]), operation["ok"])
            for name in ("p99", "p9999"):
                quantile = operation["service"][name]
                self.assertEqual(row[f"service_{name}_ns"], f"{'>' if quantile['censored'] else ''}{quantile['ns']}")

    def test_frames_and_tables_have_the_same_rows(self) -> None:
        for name in ("latency", "memory", "health"):
            self.assertIn(name, self.run_.tables)
            self.assertEqual(len(self.run_.frame(name)), self.run_.table(name).num_rows)
        with self.assertRaisesRegex(KeyError, "no table `nonsense`"):
            self.run_.table("nonsense")

    def test_the_stage_is_marked(self) -> None:
        self.assertRegex(self.stderr.getvalue(), r"(?s)\[STAGE:START\] run:kv\n.*\[STAGE:END\] run:kv duration=\d+\.\d+s\n")


class WhatGoesWrong(unittest.TestCase):
    def test_a_wrong_scenario_raises_with_the_binary_s_words(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            config = vst.BenchmarkConfig(scenario="no-such-scenario", results=folder)
            with self.assertRaises(vst.VstError) as raised:
                vst.run(config, progress=False)
        self.assertEqual(raised.exception.exit_code, 3)
        self.assertIn("no-such-scenario", str(raised.exception))

    def test_a_folder_that_is_no_run_is_named(self) -> None:
        with tempfile.TemporaryDirectory() as folder, self.assertRaisesRegex(FileNotFoundError, re.escape(folder)):
            vst.open_run(folder)

    def test_a_password_shows_nowhere(self) -> None:
        config = vst.BenchmarkConfig(password="hunter2", set={"a": True})
        self.assertNotIn("hunter2", repr(config) + " ".join(config.options()))
        self.assertEqual(config.options()[-2:], ["--set", "a=true"])

    def test_a_stage_ends_also_when_it_fails(self) -> None:
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr), contextlib.suppress(ZeroDivisionError), vst.stage("s"):
            _ = 1 / 0
        self.assertIn("[STAGE:END] s: duration=", stderr.getvalue())


if __name__ == "__main__":
    unittest.main()
